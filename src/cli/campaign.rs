//! `vmgate status` and `vmgate campaign`: how far a change is that runners carry out, and whether it goes on.

use std::{io::IsTerminal, thread, time::Duration};

use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::{Failure, hook, ledger, options::Shared, output, session::Session};
use vmgate_execute::campaign::{State, render, uptime_seconds};
use vmgate_ledger::{
    Campaign, Entry, Ledger, Selection,
    campaign::{Event, Steering},
    entry::Kind,
};
use vmgate_verdict::ExitCode;

#[derive(Debug, Args)]
pub(super) struct Status {
    /// Id of the change; the newest campaign of the ledger if none is given
    change: Option<String>,
    /// Look again every two seconds, until it is over
    #[arg(long)]
    watch: bool,
}

#[derive(Debug, Args)]
pub(super) struct CampaignCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Begin no move until it is resumed; those under way go on
    Pause {
        /// Id of the change; the newest campaign of the ledger if none is given
        change: Option<String>,
    },
    /// Go on, after a pause or when the error budget was used up
    Resume {
        /// Id of the change; the newest campaign of the ledger if none is given
        change: Option<String>,
    },
    /// Begin no move any more; runners end when theirs are over
    Stop {
        /// Id of the change; the newest campaign of the ledger if none is given
        change: Option<String>,
    },
    /// Let the next wave begin: the hosts that it waits for have had their maintenance
    Open {
        /// Id of the change; the newest campaign of the ledger if none is given
        change: Option<String>,
    },
}

impl Status {
    pub(super) fn run(&self, shared: &Shared) -> Result<ExitCode, Failure> {
        let ledger = open(shared)?;
        let campaign = find(&ledger, self.change.as_deref())?;
        loop {
            let state = read(&ledger, &campaign)?;
            let text = render(&state, Timestamp::now());
            let live = self.watch && std::io::stdout().is_terminal();
            output::to_stdout(|out| {
                // The screen is cleared and written from its top.
                let clear = if live { "\x1b[H\x1b[2J" } else { "" };
                write!(out, "{clear}{text}")
            })?;
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
    pub(super) fn run(&self, shared: &Shared) -> Result<ExitCode, Failure> {
        let ledger = open(shared)?;
        let (change, what) = match &self.what {
            What::Pause { change } => (change, Some(Steering::Pause)),
            What::Resume { change } => (change, Some(Steering::Resume)),
            What::Stop { change } => (change, Some(Steering::Stop)),
            What::Open { change } => (change, None),
        };
        let campaign = find(&ledger, change.as_deref())?;
        let state = read(&ledger, &campaign)?;
        let by = hook::operator();
        let (event, said) = if let Some(what) = what {
            (Event::Steered { what, by }, format!("{} is {}", state.id, what.word()))
        } else {
            let wave = state.wave();
            let name = state.waves.get(wave).cloned().unwrap_or_default();
            (Event::WaveOpened { wave, by }, format!("{}: `{name}` may begin", state.id))
        };
        ledger.append(&Entry::Campaign(Campaign { campaign, event })).map_err(Failure::failed)?;
        output::say(shared, &said);
        Ok(ExitCode::Go)
    }
}

pub(super) fn open(shared: &Shared) -> Result<Ledger, Failure> {
    let session = Session::open(shared)?;
    Ledger::open_existing(session.ledger_for_moves()?).map_err(ledger::failure)
}

/// The state of a campaign, by its digest.
pub(super) fn read(ledger: &Ledger, campaign: &str) -> Result<State, Failure> {
    let mut state = State::new(campaign);
    let records = ledger.records(&state.unread()).map_err(Failure::failed)?;
    state.read(&records, uptime_seconds());
    Ok(state)
}

/// The newest campaign, of that change where one is named.
pub(super) fn find(ledger: &Ledger, change: Option<&str>) -> Result<String, Failure> {
    let wanted = Selection { kinds: vec![Kind::Campaign], ..Selection::default() };
    let records = ledger.records(&wanted).map_err(Failure::failed)?;
    let opened = records.iter().rev().filter_map(|record| match &record.entry {
        Entry::Campaign(Campaign { campaign, event: Event::Opened { id, .. } }) => Some((id, campaign)),
        _ => None,
    });
    let found = opened.into_iter().find(|(id, _)| change.is_none_or(|change| **id == change));
    found.map(|(_, campaign)| campaign.clone()).ok_or_else(|| {
        let which = change.map_or(String::new(), |change| format!(" of {change}"));
        Failure::usage(format!("the ledger has no campaign{which}: `vmgate run --change FILE` begins one"))
    })
}
