//! One run of a replay: a simulation of QEMU's migration thread with one draw of the uncertain inputs.
//!
//! The order of steps is that of `migration_thread`, `migration_iteration_run`, `ram_save_iterate` and
//! `migration_update_counters` in QEMU 7.2.22, 10.0.13 and 10.2.2, whose sources were compared. The loop differs between them in what
//! [`MigrationParameters`] says: the sync on a timer while throttling (9.2), the bandwidth that QEMU is told (8.2), the dirty limit
//! (8.1), and the bytes that count against the bandwidth limit: each page, or what is flushed (8.2). Not replayed: 7.2 waits for all
//! threads of multifd after each section; 10.2 completes at the threshold too and not only below it, and leaves the dirty log alone
//! in the last stage; and QEMU's own expected downtime, which decides nothing.

mod sending;
mod switchover;

use sending::PageCosts;
use vmgate_facts::trace::PAGE_BYTES;

use super::{
    dirty::{DirtyPages, PageAtCursor},
    guest::TracedGuest,
    schedule::{ScheduledAction, ScheduledStep},
    send_queue::SendQueue,
    settings::{Conditions, MigrationParameters},
    stall::StallWatch,
    throttle::Throttle,
    timeline::RunTimeline,
};

/// Maximum length of a section (MAX_WAIT).
const SECTION_SECONDS: f64 = 0.050;
/// Window in which bandwidth is measured and the rate budget renewed (BUFFER_DELAY).
const WINDOW_SECONDS: f64 = 0.100;
/// Interval of the timed sync while throttling (CPU_THROTTLE_DIRTY_SYNC_TIMESLICE_MS).
const TIMER_SECONDS: f64 = 5.0;
/// Bytes of a page's header, of a zero page, and of a section's end.
const PAGE_HEADER: f64 = 8.0;
const SECTION_END_BYTES: f64 = 8.0;
const PAGE: f64 = PAGE_BYTES as f64;
/// A run is stopped after this many passes through the trace: further passes would only repeat.
const PATIENCE_ROUNDS: f64 = 2.0;
const PATIENCE_SECONDS: f64 = 20.0;
/// Busy time of a vCPU in which the kernel has written all its silently rewritten pages.
const SILENT_BUSY_SECONDS: f64 = 0.005;
/// Page number that stands for the silently rewritten pages at the cursor.
const SILENT: usize = usize::MAX;
/// Cost of computing a sync, in pages sent.
const SYNC_WORK: u64 = 300;

/// Inputs of one run that a forecast does not know exactly, drawn at random.
#[derive(Debug, Clone)]
pub(super) struct UncertainInputs {
    pub(super) weights: Vec<f64>,
    pub(super) offset_seconds: f64,
    pub(super) goodput: f64,
    pub(super) queue_bytes: f64,
    pub(super) silent_pages: f64,
    pub(super) setup_seconds: f64,
    pub(super) other_bytes: f64,
    pub(super) stop_seconds: f64,
    pub(super) start_seconds: f64,
    pub(super) finish_seconds: f64,
    pub(super) vcpu_busy: f64,
    pub(super) throttle_effect: f64,
    pub(super) delta_bytes: f64,
    pub(super) delta_overflow: f64,
    pub(super) tls_seconds_per_byte: f64,
    pub(super) compressed_ratio: f64,
    pub(super) compressing_seconds: f64,
    pub(super) resident_zero_ratio: f64,
    pub(super) load_ratio: f64,
    pub(super) load_ends_seconds: f64,
    pub(super) seed: u64,
    /// Time between two points kept for the plot; infinite for none.
    pub(super) moment_seconds: f64,
}

/// Result of one simulated migration. Times are in seconds from the order to migrate.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct ReplayResult {
    pub(super) converged: bool,
    pub(super) total_seconds: f64,
    pub(super) bytes: f64,
    pub(super) rounds: f64,
    pub(super) blackout_seconds: f64,
    /// Smallest rest left to send after any sync, as time at the goodput.
    pub(super) least_left_seconds: f64,
    /// CPU time of QEMU divided by the time it was sending.
    pub(super) cpu_ratio: f64,
    /// Time spent waiting for the rate budget divided by the time it was sending.
    pub(super) limited_ratio: f64,
    /// Memory dirtied divided by memory sent after the first pass; 0 without a second pass.
    pub(super) dirtied_to_sent: f64,
    pub(super) throttle_percent: f64,
    /// Memory that the guest fetched after a switch to post-copy, and the time until all of it was there.
    pub(super) remote_bytes: f64,
    pub(super) remote_seconds: f64,
    /// Time after the first pass in which the migration could have completed.
    pub(super) exposed_seconds: f64,
    /// Time when the run was stopped early, before its horizon.
    pub(super) given_up_at: Option<f64>,
    /// Sampled pages sent: the cost of computing this run.
    pub(super) work: u64,
    /// Memory left over time, and the ends of the rounds.
    pub(super) timeline: RunTimeline,
}

/// State of the simulated migration thread.
pub(super) struct Run<'a> {
    guest: &'a TracedGuest,
    settings: &'a MigrationParameters,
    conditions: &'a Conditions,
    inputs: &'a UncertainInputs,
    dirty: DirtyPages<'a>,
    page: PageCosts,
    /// Dirty pages that no trace shows, and the guest time since which they are rewritten.
    silent: f64,
    silent_since: f64,
    send_queue: SendQueue,
    throttle: Throttle,
    /// Speed of the guest relative to its usual speed.
    speed: f64,
    /// Steps of the schedule that are still to come, and what the earlier ones made of the settings.
    steps: &'a [ScheduledStep],
    stall: StallWatch<'a>,
    downtime_limit: f64,
    bandwidth_limit: Option<f64>,
    wants_post_copy: bool,
    aborted: bool,
    paused_at: Option<f64>,
    now: f64,
    guest_now: f64,
    window_began: f64,
    window_bytes: f64,
    threshold: f64,
    bytes: f64,
    syncs: u32,
    next_timer: f64,
    syncs_at_timer: u32,
    in_cache: Vec<u64>,
    cached_pages: f64,
    cpu: f64,
    limited: f64,
    dirtied_later: f64,
    sent_first: f64,
    first_pass_ended: Option<f64>,
    least_left: f64,
    work: u64,
    timeline: RunTimeline,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        guest: &'a TracedGuest,
        settings: &'a MigrationParameters,
        conditions: &'a Conditions,
        drawn: &'a UncertainInputs,
    ) -> Self {
        let at = drawn.offset_seconds;
        Self {
            dirty: DirtyPages::all(guest, &drawn.weights, settings.accelerator, drawn.seed, at),
            page: PageCosts::of(settings, conditions, drawn),
            silent: 0.0, // all of RAM is dirty anyway
            silent_since: at,
            send_queue: SendQueue::new(drawn.goodput, drawn.queue_bytes),
            throttle: Throttle::new(settings.auto_converge, settings.dirty_limit()),
            speed: 1.0,
            steps: settings.schedule.steps(),
            stall: StallWatch::new(settings.stall.as_ref()),
            downtime_limit: settings.downtime_limit_seconds,
            bandwidth_limit: settings.bandwidth_limit_bytes_per_second,
            wants_post_copy: false,
            aborted: false,
            paused_at: None,
            now: 0.0,
            guest_now: at,
            window_began: 0.0,
            window_bytes: 0.0,
            threshold: 0.0,
            bytes: 0.0,
            syncs: 1, // the one at setup
            next_timer: TIMER_SECONDS,
            syncs_at_timer: 0,
            in_cache: vec![0; if settings.xbzrle_cache_bytes.is_some() { guest.zero.len() } else { 0 }],
            cached_pages: 0.0,
            cpu: 0.0,
            limited: 0.0,
            dirtied_later: 0.0,
            sent_first: 0.0,
            first_pass_ended: None,
            least_left: f64::INFINITY,
            work: 0,
            timeline: RunTimeline::every(drawn.moment_seconds),
            guest,
            settings,
            conditions,
            inputs: drawn,
        }
    }

    /// Runs until the migration completes, or until `horizon` seconds from the order to migrate.
    pub(super) fn run_until(mut self, horizon: f64) -> ReplayResult {
        let horizon = horizon - self.inputs.setup_seconds;
        self.throttle.synced(self.now, 0.0, 0.0);
        while self.now < horizon && !self.aborted {
            self.follow_schedule();
            if self.left() < self.threshold {
                self.sync();
                self.least_left = self.least_left.min(self.left() / self.inputs.goodput);
            }
            if self.wants_post_copy || self.settings.post_copy && self.syncs > 1 {
                return self.post_copy();
            }
            // At a threshold of zero, in the first window, only a guest with nothing left to send completes.
            if self.left() < 0.5 * PAGE || self.left() < self.threshold {
                return self.complete();
            }
            if !self.stretch() {
                self.section();
            }
            self.timer();
            self.end_of_section();
            if self.is_hopeless() {
                let now = self.now;
                let given_up_at = Some(now + self.inputs.setup_seconds);
                return ReplayResult { given_up_at, ..self.result(false, 0.0, now) };
            }
        }
        let now = self.now;
        self.result(false, 0.0, now)
    }

    /// True if nothing will change any more: the trace was repeated, and the throttle cannot become stronger.
    fn is_hopeless(&self) -> bool {
        let Some(since) = self.first_pass_ended else { return false };
        let patience = PATIENCE_SECONDS.max(PATIENCE_ROUNDS * self.guest.seconds());
        let load_ends = self.inputs.load_ends_seconds;
        let load_is_to_end = load_ends.is_finite() && self.now < load_ends + patience;
        self.now - since > patience && !self.throttle.may_grow() && !self.is_watched() && !load_is_to_end
    }

    /// True while its manager may still do something to it.
    fn is_watched(&self) -> bool {
        !self.steps.is_empty() || self.stall.may_act()
    }

    fn elapse(&mut self, seconds: f64) {
        self.now += seconds;
        self.timeline.pass(self.now + self.inputs.setup_seconds, self.left());
        self.guest_now += seconds * self.speed * self.load();
    }

    /// Part of the guest's load that is left now: none while the guest is paused.
    fn load(&self) -> f64 {
        let over = self.now + self.inputs.setup_seconds >= self.inputs.load_ends_seconds;
        match (self.paused_at, self.conditions.load_end) {
            (Some(_), _) => 0.0,
            (None, Some(end)) if over => end.remaining_ratio * self.inputs.load_ratio,
            _ => self.inputs.load_ratio,
        }
    }

    /// Takes the steps of the schedule that are due.
    fn follow_schedule(&mut self) {
        let now = self.now + self.inputs.setup_seconds;
        while let Some((step, later)) = self.steps.split_first().filter(|(step, _)| step.at_seconds <= now) {
            self.steps = later;
            self.act(step.action);
        }
        if let Some(action) = self.stall.look(now, self.left(), self.syncs) {
            self.act(action);
        }
    }

    fn act(&mut self, action: ScheduledAction) {
        match action {
            ScheduledAction::DowntimeLimit(limit) => {
                self.threshold *= limit / self.downtime_limit.max(1e-6);
                self.downtime_limit = limit;
            }
            ScheduledAction::BandwidthLimit(limit) => self.bandwidth_limit = limit,
            ScheduledAction::PostCopy => self.wants_post_copy = true,
            ScheduledAction::Pause => self.paused_at = self.paused_at.or(Some(self.now)),
            ScheduledAction::Abort => self.aborted = true,
        }
    }

    /// Bytes left to send.
    fn left(&self) -> f64 {
        (self.dirty.pages() + self.silent) * PAGE
    }

    /// Synchronises with the dirty log; returns the bytes that became dirty.
    fn read_dirty_log(&mut self) -> f64 {
        let before = self.left();
        self.dirty.sync(self.guest_now);
        let written = (self.guest_now - self.silent_since) * self.inputs.vcpu_busy / SILENT_BUSY_SECONDS;
        self.silent = self.silent.max(self.inputs.silent_pages * written.min(1.0));
        self.silent_since = self.guest_now;
        self.syncs += 1;
        (self.left() - before).max(0.0)
    }

    /// Next page to send.
    fn seek(&mut self) -> Option<PageAtCursor> {
        let silent =
            (self.silent >= 0.5).then_some(PageAtCursor { page: SILENT, left: self.silent, zero: false });
        self.dirty.seek(self.guest_now).or(silent)
    }

    fn sent(&mut self, at: PageAtCursor, pages: f64) {
        if at.page == SILENT {
            self.silent -= pages;
        } else {
            self.dirty.sent(pages);
        }
    }

    fn sync(&mut self) {
        if self.syncs == 1 {
            self.sent_first = self.bytes;
            self.first_pass_ended = Some(self.now);
        }
        self.timeline.round_ends.push(self.now + self.inputs.setup_seconds);
        let dirtied = self.read_dirty_log();
        self.work += SYNC_WORK;
        if self.syncs > 2 {
            self.dirtied_later += dirtied;
        }
        let seconds = self.conditions.sync_seconds_per_gib * self.guest.ram_gib;
        self.send_queue.pass(seconds);
        self.elapse(seconds);
        self.throttle.synced(self.now, dirtied, self.bytes);
        self.speed = self.throttle.speed(self.inputs.vcpu_busy, self.inputs.throttle_effect);
    }

    /// Timed sync of newer QEMUs while auto-converge is on, so that a long round does not delay the throttle.
    fn timer(&mut self) {
        if !self.settings.syncs_while_throttling() || self.now < self.next_timer {
            return;
        }
        if self.syncs > 1 && self.syncs == self.syncs_at_timer {
            self.sync();
        }
        self.syncs_at_timer = self.syncs;
        self.next_timer += TIMER_SECONDS;
    }

    fn section(&mut self) {
        let began = self.now;
        let mut until_look = self.stride(self.page.seconds, 0.0);
        while !self.budget_spent() {
            let Some(at) = self.seek() else { break };
            let (bytes, cpu) = self.page_cost(at);
            let mut pages = at.left.min(until_look);
            if let Some(left) = self.budget_left() {
                pages = pages.min((left / bytes).ceil().max(1.0));
            }
            self.hand_over(at, pages, bytes, cpu);
            until_look -= pages;
            if until_look <= 0.0 {
                if self.now - began > SECTION_SECONDS {
                    break;
                }
                until_look = self.stride(cpu, self.now - began);
            }
        }
        self.window_bytes += SECTION_END_BYTES;
        self.bytes += SECTION_END_BYTES;
    }

    fn hand_over(&mut self, at: PageAtCursor, pages: f64, bytes: f64, cpu: f64) {
        let seconds = self.send_queue.send(pages * bytes, pages * cpu);
        self.cpu += pages * cpu;
        self.elapse(seconds);
        self.window_bytes += pages * bytes;
        self.bytes += pages * bytes;
        self.sent(at, pages);
        self.work += 1;
        if pages >= at.left {
            self.cache(at.page);
        }
    }

    /// Waits for the end of the window where the rate budget is spent, and starts a new window if the last one is over.
    fn end_of_section(&mut self) {
        if let Some(budget) = self.window_budget().filter(|budget| self.window_bytes >= *budget) {
            // A stretch of many pages is the work of several windows, the last of them in part.
            let windows = self.window_bytes / budget;
            let wait = (self.window_began + WINDOW_SECONDS * windows - self.now).max(0.0);
            self.limited += wait;
            self.send_queue.pass(wait);
            self.elapse(wait);
        }
        self.new_window();
    }

    fn new_window(&mut self) {
        let length = self.now - self.window_began;
        if length < WINDOW_SECONDS - 1e-9 {
            return;
        }
        let measured = self.window_bytes / length;
        let bandwidth = self.settings.switchover_bandwidth().unwrap_or(measured);
        self.threshold = bandwidth * self.downtime_limit;
        self.window_began = self.now;
        self.window_bytes = 0.0;
    }

    fn result(self, converged: bool, blackout_seconds: f64, end: f64) -> ReplayResult {
        let sending = self.now.max(1e-9);
        let sent_later = self.bytes - self.sent_first;
        ReplayResult {
            converged,
            total_seconds: end + self.inputs.setup_seconds,
            bytes: self.bytes,
            rounds: f64::from(self.syncs - self.settings.uncounted_syncs()),
            blackout_seconds,
            least_left_seconds: self.least_left,
            cpu_ratio: self.cpu / sending,
            limited_ratio: self.limited / sending,
            dirtied_to_sent: if self.syncs > 3 && sent_later > 0.0 {
                self.dirtied_later / sent_later
            } else {
                0.0
            },
            throttle_percent: self.throttle.percent(),
            exposed_seconds: self.first_pass_ended.map_or(0.0, |ended| self.now - ended),
            remote_bytes: 0.0,
            remote_seconds: 0.0,
            given_up_at: None,
            work: self.work,
            timeline: self.timeline,
        }
    }
}
