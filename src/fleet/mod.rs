//! Planner for many moves: destination, order and total duration of the moves of a fleet.
//!
//! Pure: the planner reads a [`Fleet`] and asks an [`Oracle`] about single moves. The oracle uses the same rules and the
//! same forecast as `vmgate check`, so a plan contains no move that the gate would refuse on the same facts.

mod build;
mod files;
mod groups;
pub mod inventory;
mod oracle;
mod model;
mod placement;
mod plan;
mod proposal;
mod free_resources;
mod schedule;
mod site;
#[cfg(feature = "libvirt")]
mod survey;

pub use build::{AmbiguousMember, BuildNotes, build};
pub use files::FilesSite;
pub use oracle::PolicyOracle;
pub use model::{
    AffinityGroup, Fleet, FleetHost, FleetNetwork, FleetVm, GroupScope, HostId, Limits, Resource, AffinityRule,
    VmId, need,
};
pub use placement::{RefusedDestination, Oracle, Placement, Ruling, UnplacedVm, RefusalReason};
pub use plan::{RollingPace, FleetPlan, PlanRequest, Shortfall, Wave, evacuate, rolling};
pub use proposal::{Proposal, ChangeHeader};
pub use schedule::{Schedule, ScheduledMove, schedule};
pub use site::{SiteVm, Site};
#[cfg(feature = "libvirt")]
pub use survey::SurveySite;

#[cfg(test)]
mod tests;
