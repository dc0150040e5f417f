//! Planner for many moves: destination, order and total duration of the moves of a fleet.
//!
//! Pure: the planner reads a [`Fleet`] and asks an [`Oracle`] about single moves. The oracle uses the same rules and the
//! same forecast as `vmgate check`, so a plan contains no move that the gate would refuse on the same facts.

mod build;
mod files;
mod free_resources;
mod groups;
pub mod inventory;
mod model;
mod oracle;
mod placement;
mod plan;
mod proposal;
mod schedule;
mod site;
#[cfg(feature = "libvirt")]
mod survey;

pub use build::{AmbiguousMember, BuildNotes, build};
pub use files::FilesSite;
pub use model::{
    AffinityGroup, AffinityRule, Fleet, FleetHost, FleetNetwork, FleetVm, GroupScope, HostId, Limits,
    Resource, VmId, need,
};
pub use oracle::PolicyOracle;
pub use placement::{Oracle, Placement, RefusalReason, RefusedDestination, Ruling, UnplacedVm};
pub use plan::{FleetPlan, PlanRequest, RollingPace, Shortfall, Wave, evacuate, rolling};
pub use proposal::{ChangeHeader, Proposal};
pub use schedule::{Schedule, ScheduledMove, schedule};
pub use site::{Site, SiteVm};
#[cfg(feature = "libvirt")]
pub use survey::SurveySite;

#[cfg(test)]
mod tests;
