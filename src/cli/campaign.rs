//! `vmgate status` and `vmgate campaign`: progress of a change that runners execute, and commands to pause, resume or stop it.

use std::{io::IsTerminal, thread, time::Duration};

use clap::{Args, Subcommand};
use jiff::Timestamp;
use vmgate_execute::campaign::{CampaignState, render, uptime_seconds};
use vmgate_ledger::{
    Campaign, Entry, Ledger, Selection,
    campaign::{CampaignEvent, Steering},
    entry::EntryKind,
};
use vmgate_verdict::ExitCode;

use super::{Failure, hook, ledger, options::GlobalOptions, output, session::Session};

#[derive(Debug, Args)]
pub(super) struct Status {
    /// Id of the change; the newest campaign of the ledger if none is given
    change: Option<String>,
    /// Update every two seconds, until the campaign has ended
    #[arg(long)]
    watch: bool,
}

#[derive(Debug, Args)]
pub(super) struct CampaignCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Begin no move until the campaign is resumed; moves under way continue
    Pause {
        /// Id of the change; the newest campaign of the ledger if none is given
        change: Option<String>,
    },
    /// Continue after a pause, or after the error budget was used up
    Resume {
        /// Id of the change; the newest campaign of the ledger if none is given
        change: Option<String>,
    },
    /// Begin no move any more; runners end when their moves have ended
    Stop {
        /// Id of the change; the newest campaign of the ledger if none is given
        change: Option<String>,
    },
    /// Let the next wave begin: the maintenance of the hosts that the wave waits for is done
    Open {
        /// Id of the change; the newest campaign of the ledger if none is given
        change: Option<String>,
    },
}

impl Status {
    pub(super) fn run(&self, shared: &GlobalOptions) -> Result<ExitCode, Failure> {
        let ledger = open(shared)?;
        let campaign = find(&ledger, self.change.as_deref())?;
        loop {
            let state = read(&ledger, &campaign)?;
            let text = render(&state, Timestamp::now());
            let live = self.watch && std::io::stdout().is_terminal();
            if live {
                // The screen is cleared and written from its top.
                output::to_stdout_as_it_is(|out| out.write_all(b"\x1b[H\x1b[2J"))?;
            }
            output::to_stdout(|out| out.write_all(text.as_bytes()))?;
            let counts = state.counts(None);
            let stopped = matches!(state.steering, Some((Steering::Stop, _)));
            let is_over = counts.running == 0 && (stopped || counts.waiting == 0);
            if !self.watch || is_over {
                return Ok(if counts.failed > 0 { ExitCode::NotFinished } else { ExitCode::Go });
            }
            thread::sleep(Duration::from_secs(2));
        }
    }
}

impl CampaignCommand {
    pub(super) fn run(&self, shared: &GlobalOptions) -> Result<ExitCode, Failure> {
        let ledger = open(shared)?;
        let (change, what) = match &self.action {
            Action::Pause { change } => (change, Some(Steering::Pause)),
            Action::Resume { change } => (change, Some(Steering::Resume)),
            Action::Stop { change } => (change, Some(Steering::Stop)),
            Action::Open { change } => (change, None),
        };
        let campaign = find(&ledger, change.as_deref())?;
        let state = read(&ledger, &campaign)?;
        let by = hook::operator();
        let (event, said) = if let Some(what) = what {
            (CampaignEvent::Steered { what, by }, format!("{} is {}", state.id, what.word()))
        } else {
            let wave = state.wave();
            let name = state.waves.get(wave).cloned().unwrap_or_default();
            (CampaignEvent::WaveOpened { wave, by }, format!("{}: `{name}` may begin", state.id))
        };
        ledger.append(&Entry::Campaign(Campaign { campaign, event })).map_err(Failure::failed)?;
        output::say(shared, &said);
        Ok(ExitCode::Go)
    }
}

pub(super) fn open(shared: &GlobalOptions) -> Result<Ledger, Failure> {
    let session = Session::open(shared)?;
    let ledger = Ledger::open_existing(session.ledger_for_moves()?).map_err(ledger::failure)?;
    Ok(ledger.signed_with(session.signing_key()?))
}

/// The state of a campaign, by its digest.
pub(super) fn read(ledger: &Ledger, campaign: &str) -> Result<CampaignState, Failure> {
    let mut state = CampaignState::new(campaign);
    let records = ledger.records(&state.unread()).map_err(Failure::failed)?;
    state.read(&records, uptime_seconds());
    Ok(state)
}

/// Digest of the newest campaign, or of the newest one of the named change.
pub(super) fn find(ledger: &Ledger, change: Option<&str>) -> Result<String, Failure> {
    let wanted = Selection { kinds: vec![EntryKind::Campaign], ..Selection::default() };
    let records = ledger.records(&wanted).map_err(Failure::failed)?;
    let opened = records.iter().rev().filter_map(|record| match &record.entry {
        Entry::Campaign(Campaign { campaign, event: CampaignEvent::Opened { id, .. } }) => {
            Some((id, campaign))
        }
        _ => None,
    });
    let found = opened.into_iter().find(|(id, _)| change.is_none_or(|change| **id == change));
    found.map(|(_, campaign)| campaign.clone()).ok_or_else(|| {
        let which = change.map_or(String::new(), |change| format!(" of {change}"));
        Failure::usage(format!("the ledger has no campaign{which}: `vmgate run --change FILE` begins one"))
    })
}
