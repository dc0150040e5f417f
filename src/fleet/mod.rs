//! Many moves at once: which VM goes to which host, in what order, and how long it takes together.
//!
//! Pure: the planner reads a [`Fleet`] and asks an [`Oracle`] about single moves. That oracle is the same rules and the
//! same forecast as `vmgate check`, so that a plan holds no move that the gate would refuse on the same facts.

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
