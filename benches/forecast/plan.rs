//! The plan: the migrations that are forecast and executed. A seed gives the same plan again.

use std::fmt;

use serde::{Deserialize, Serialize};
use vmgate_facts::{Accelerator, ManagedMigration};

use crate::{Outcome, managers};

/// One migration.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Case {
    /// Number in its plan.
    pub(crate) id: u32,
    /// Row of the tables.
    #[serde(default)]
    pub(crate) kind: Kind,
    /// The case that it repeats, for the noise floor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) repeats: Option<u32>,
    /// Host that it starts on, and host that it goes to: `a` (QEMU 7.2), `b` (10.0) or `d` (11.1).
    pub(crate) from: String,
    pub(crate) to: String,
    /// RAM.
    pub(crate) memory_mib: u64,
    /// Workload of the guest, as `lab guest start` takes it.
    pub(crate) workload: String,
    /// Rate of the migration link.
    pub(crate) link_mbit: u64,
    /// Downtime limit.
    pub(crate) limit_ms: u64,
    /// Additional options of `virsh migrate`.
    pub(crate) options: Vec<String>,
    /// Accelerator of the guest.
    pub(crate) accelerator: Accelerator,
    /// Bandwidth limit of the migration, as evacuations and changes order it; none for no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bandwidth_mib: Option<u64>,
    /// True if another guest moves over the same link at the same time, each with its share of it as bandwidth limit.
    #[serde(default)]
    pub(crate) beside: bool,
    /// The migration that a manager runs: its limits, their times, and its end of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) managed: Option<ManagedMigration>,
}

/// Workload of a guest, or setting of QEMU: a row of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    #[default]
    Idle,
    Random,
    HotCold,
    Zipf,
    Sweep,
    Phases,
    Redis,
    Sqlite,
    Stress,
    Compile,
    AutoConverge,
    Xbzrle,
    Rewrite,
    Zero,
    Fill,
}

impl Kind {
    pub(crate) const ALL: [Self; 15] = [
        Self::Idle,
        Self::Random,
        Self::HotCold,
        Self::Zipf,
        Self::Sweep,
        Self::Phases,
        Self::Redis,
        Self::Sqlite,
        Self::Stress,
        Self::Compile,
        Self::AutoConverge,
        Self::Xbzrle,
        Self::Rewrite,
        Self::Zero,
        Self::Fill,
    ];

    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Random => "random writer",
            Self::HotCold => "hot and cold",
            Self::Zipf => "Zipf",
            Self::Sweep => "sequential sweep",
            Self::Phases => "phases",
            Self::Redis => "redis",
            Self::Sqlite => "sqlite",
            Self::Stress => "stress-ng",
            Self::Compile => "a compiler",
            Self::AutoConverge => "auto-converge",
            Self::Xbzrle => "XBZRLE",
            Self::Rewrite => "rewriting the same values",
            Self::Zero => "touched zero pages",
            Self::Fill => "huge fills",
        }
    }

    /// Number of cases of this kind in a whole plan.
    fn cases(self) -> u32 {
        match self {
            Self::Idle | Self::Phases => 12,
            Self::Random => 24,
            Self::HotCold | Self::Zipf => 15,
            Self::Sweep => 18,
            Self::Redis | Self::Sqlite | Self::Stress | Self::Compile => 3,
            Self::AutoConverge | Self::Xbzrle => 12,
            Self::Rewrite | Self::Zero | Self::Fill => 0, // of guests under KVM alone
        }
    }

    fn pattern(self) -> Option<&'static str> {
        match self {
            Self::Random => Some("random"),
            Self::HotCold => Some("hotcold"),
            Self::Zipf => Some("zipf"),
            Self::Sweep => Some("sweep"),
            Self::Phases => Some("phases"),
            _ => None,
        }
    }

    fn program(self) -> Option<&'static str> {
        match self {
            Self::Redis => Some("software redis-load keys=20000"),
            Self::Sqlite => Some("software sqlite rows=20000"),
            Self::Stress => Some("software stress size=48"),
            Self::Compile => Some("software compile"),
            _ => None,
        }
    }
}

impl Case {
    /// Image with the software that the guest runs.
    pub(crate) fn image(&self) -> &'static str {
        if self.accelerator == Accelerator::Kvm {
            return "kvm";
        }
        if self.kind.program().is_some() { "software" } else { "small" }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, from, to, memory_mib, workload, link_mbit, limit_ms, options, .. } = self;
        let bandwidth =
            self.bandwidth_mib.map(|limit| format!(", at most {limit} MiB/s")).unwrap_or_default();
        let beside = if self.beside { " beside another" } else { "" };
        let managed =
            self.managed.as_ref().map(|by| format!(", as {}", managers::in_words(by))).unwrap_or_default();
        let options: String = options.iter().map(|option| format!(" {option}")).collect();
        write!(
            f,
            "{id}: {memory_mib} MiB {from} to {to}, {workload}, {link_mbit} Mbit/s{bandwidth}{beside}, {limit_ms} ms{options}{managed}"
        )
    }
}

/// Number of cases that are repeated for the noise floor, and number of repetitions.
const REPEATED: usize = 2;
const REPEATS: usize = 3;

/// The plan for emulated guests: `share` of each kind, at least one, in an order drawn by the seed, and a few repetitions.
/// `only` keeps the kinds whose name has it.
pub(crate) fn cases(seed: u64, share: f64, only: Option<&str>) -> Vec<Case> {
    let mut random = Random::new(seed);
    let mut plan = Vec::new();
    for kind in Kind::ALL.into_iter().filter(|kind| only.is_none_or(|text| kind.words().contains(text))) {
        let all = kind.cases();
        let wanted = ((f64::from(all) * share).round() as u32).clamp(1.min(all), all);
        plan.extend((0..wanted).map(|_| draw(kind, &mut random)));
    }
    random.shuffle(&mut plan);
    numbered(plan)
}

/// Numbers the cases, and puts repetitions of a few into the second half.
fn numbered(mut plan: Vec<Case>) -> Vec<Case> {
    for (id, case) in (0..).zip(&mut plan) {
        case.id = id;
    }
    let steady = plan
        .iter()
        .filter(|case| case.kind == Kind::Random && case.bandwidth_mib.is_none() && case.managed.is_none());
    let again: Vec<Case> = steady.take(REPEATED).cloned().collect();
    for (at, case) in again.iter().flat_map(|case| std::iter::repeat_n(case, REPEATS)).enumerate() {
        let (id, place) = (plan.len() as u32, plan.len() / 2 + 2 * at);
        plan.insert(place.min(plan.len()), Case { id, repeats: Some(case.id), ..case.clone() });
    }
    plan
}

/// The plan for guests under KVM: rounds of all their kinds and rounds of all pairs of hosts; of nine, one has a bandwidth limit
/// on a link that has room for more, one goes beside another move on the same link, each limited to its half, and three go as a
/// manager of VMs would run them.
pub(crate) fn kvm_cases(seed: u64, number: usize) -> Outcome<Vec<Case>> {
    const KINDS: [Kind; 9] = [
        Kind::Random,
        Kind::HotCold,
        Kind::Idle,
        Kind::Zipf,
        Kind::Fill,
        Kind::Sweep,
        Kind::Zero,
        Kind::Phases,
        Kind::Rewrite,
    ];
    const PAIRS: [(&str, &str); 6] = [("a", "b"), ("b", "a"), ("a", "d"), ("d", "a"), ("b", "d"), ("d", "b")];
    const LIMITS: [Limit; 9] = [
        Limit::None,
        Limit::None,
        Limit::None,
        Limit::None,
        Limit::Set,
        Limit::SharedLink,
        Limit::Managed,
        Limit::Managed,
        Limit::Managed,
    ];
    let mut random = Random::new(seed);
    let number = number - REPEATED * REPEATS;
    let kinds = random.rounds(&KINDS, number);
    let pairs = random.rounds(&PAIRS, number);
    let limits = random.rounds(&LIMITS, number);
    let mut managed = random.rounds(&managers::SITES, number).into_iter();
    let mut plan = Vec::new();
    for ((kind, pair), limit) in kinds.into_iter().zip(pairs).zip(limits) {
        let mut case = draw_kvm(kind, pair, limit, &mut random);
        if let (Limit::Managed, Some(site)) = (limit, managed.next()) {
            let migration = site.migration(case.memory_mib << 20)?;
            case.bandwidth_mib = migration.bandwidth_limit_bytes_per_second.map(|limit| limit >> 20);
            let first = migration.downtime_limits.first();
            case.limit_ms = first.map_or(300, |step| (step.limit_seconds * 1e3).round() as u64);
            case.options = managers::options(&migration);
            case.managed = Some(migration);
        }
        plan.push(case);
    }
    Ok(numbered(plan))
}

/// Origin of a bandwidth limit.
#[derive(Clone, Copy)]
enum Limit {
    None,
    /// Set by the operator.
    Set,
    /// The move's share of a link that another move uses at the same time.
    SharedLink,
    /// Set by a manager of VMs.
    Managed,
}

fn draw_kvm(kind: Kind, (from, to): (&str, &str), limit: Limit, random: &mut Random) -> Case {
    let memory_mib = *random.of(&[256, 512, 512, 1024]);
    let working = *random.of(&[16, 32, 64]);
    let filled = *random.of(&[0, 32, 96]);
    let mut link_mbit = *random.of(match limit {
        Limit::None => &[50, 100, 100, 200, 200, 400, 800, 1200, 2000],
        Limit::Managed => &[100, 200, 200, 400],
        Limit::Set => &[800, 1200, 2000],
        Limit::SharedLink => &[200, 400, 800, 1200],
    });
    while link_mbit < 2000 && (working + filled) * 8 > link_mbit * 15 {
        link_mbit *= 2;
    }
    let bandwidth_mib = match limit {
        Limit::None | Limit::Managed => None,
        Limit::Set => Some(*random.of(&[16, 32, 60])),
        Limit::SharedLink => Some((link_mbit * 1_000_000 / 8 / 2) >> 20),
    };
    let carried_mib = bandwidth_mib.map_or(link_mbit as f64 / 8.0 * 0.956 / 1.048_576, |limit| limit as f64);
    let share = *random.of(&[0.05, 0.2, 0.4, 0.6, 0.75, 0.9, 1.1, 1.4]);
    // What the platform lets this guest write, page by page and in fills of 64.
    let most = if kind == Kind::Fill { 120.0 } else { 24.0 };
    let rate = (carried_mib * share).clamp(0.5, most);
    let written = match kind {
        Kind::Idle => "fill size=16".to_owned(),
        Kind::Zero => format!("dirty size={working} rate={rate:.1} pattern=random + zero size=96"),
        Kind::Rewrite => {
            format!(
                "dirty size=8 rate=2 pattern=random rewrite + dirty size={working} rate={rate:.1} pattern=random"
            )
        }
        Kind::Fill => format!("dirty size={working} rate={rate:.1} pattern=random block=64"),
        other => {
            format!("dirty size={working} rate={rate:.1} pattern={}", other.pattern().unwrap_or("random"))
        }
    };
    let workload = if filled > 0 { format!("{written} + fill size={filled}") } else { written };
    Case {
        id: 0,
        kind,
        repeats: None,
        from: from.to_owned(),
        to: to.to_owned(),
        memory_mib,
        workload,
        link_mbit,
        limit_ms: *random.of(&[20, 50, 100, 300, 300, 500, 1000, 2000]),
        options: Vec::new(),
        accelerator: Accelerator::Kvm,
        bandwidth_mib,
        beside: matches!(limit, Limit::SharedLink),
        managed: None,
    }
}

fn draw(kind: Kind, random: &mut Random) -> Case {
    let (from, to) = *random.of(&[("a", "b"), ("b", "a")]);
    let memory_mib = if kind.program().is_some() { 768 } else { *random.of(&[256, 512, 512, 1024]) };
    let mut link_mbit = *random.of(&[50, 100, 200, 400, 800, 1200, 2000]);
    let mut limit_ms = *random.of(&[50, 100, 300, 300, 500, 1000, 2000]);
    let working = *random.of(&[16, 32, 64, 128]);
    let filled = *random.of(&[0, 0, 32, 128]).min(&(memory_mib / 4));
    // Up to one and a half times what the link carries, mostly below; an emulated guest dirties 80 MiB/s at the most.
    let share = *random.of(&[0.05, 0.2, 0.4, 0.6, 0.75, 0.9, 1.1, 1.5]);
    let pattern = match kind {
        Kind::AutoConverge | Kind::Xbzrle => *random.of(&["random", "hotcold", "sweep"]),
        other => other.pattern().unwrap_or_default(),
    };
    let is_program = kind.program().is_some();
    // A first pass over what is not zero should take half a minute at the most.
    let first_pass_mib = if is_program { 400 } else { 100 + working + filled };
    while link_mbit < 2000 && first_pass_mib * 8 > link_mbit * 30 {
        link_mbit *= 2;
    }
    if matches!(kind, Kind::AutoConverge) {
        limit_ms = limit_ms.max(100);
    }
    let rate = (link_mbit as f64 / 8.0 * 0.956 / 1.048_576 * share).clamp(0.5, 80.0);
    let mut workload = match (kind, kind.program()) {
        (Kind::Idle, _) => "idle".to_owned(),
        (_, Some(program)) => program.to_owned(),
        _ => format!("dirty size={working} rate={rate:.1} pattern={pattern}"),
    };
    if filled > 0 && !is_program {
        // Filled once, and then hardly changed.
        workload += &format!(" + dirty size={filled} rate=0.1 pattern=random");
    }
    let options: &[&str] = match kind {
        Kind::AutoConverge => &["--auto-converge"],
        Kind::Xbzrle => &["--compressed", "--comp-methods", "xbzrle", "--comp-xbzrle-cache", "67108864"],
        _ => &[],
    };
    Case {
        id: 0,
        kind,
        repeats: None,
        from: from.to_owned(),
        to: to.to_owned(),
        memory_mib,
        workload,
        link_mbit,
        limit_ms,
        options: options.iter().map(|word| (*word).to_owned()).collect(),
        accelerator: Accelerator::Tcg,
        bandwidth_mib: None,
        beside: false,
        managed: None,
    }
}

/// Xorshift.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// So many choices, in rounds of all of them, each in an order of its own.
    fn rounds<T: Copy>(&mut self, choices: &[T], number: usize) -> Vec<T> {
        let mut drawn = Vec::new();
        while drawn.len() < number {
            let mut round = choices.to_vec();
            self.shuffle(&mut round);
            drawn.extend(round);
        }
        drawn.truncate(number);
        drawn
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    fn of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at + 1));
        }
    }
}
