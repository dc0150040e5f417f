//! Many moves at once: which VM goes to which host, in what order, and how long it takes together.
//!
//! Pure: the planner reads a [`Fleet`] and asks an [`Oracle`] about single moves. That oracle is the same rules and the
//! same forecast as `vmgate check`, so that a plan holds no move that the gate would refuse on the same facts.

mod build;
mod files;
mod groups;
pub mod inventory;
mod judge;
mod model;
mod place;
mod plan;
mod proposal;
mod room;
mod schedule;
mod site;
#[cfg(feature = "libvirt")]
mod survey;

pub use build::{Ambiguous, Notes, build};
pub use files::FilesSite;
pub use judge::Judge;
pub use model::{
    Affinity, Fleet, FleetHost, FleetNetwork, FleetVm, GroupScope, HostId, Limits, Resource, Togetherness,
    VmId, need,
};
pub use place::{Banned, Oracle, Placement, Ruling, Unplaced, Why};
pub use plan::{Pace, Plan, PlanRequest, Shortfall, Wave, evacuate, rolling};
pub use proposal::{Proposal, Purpose};
pub use schedule::{Schedule, Scheduled, schedule};
pub use site::{SeenVm, Site};
#[cfg(feature = "libvirt")]
pub use survey::SurveySite;

#[cfg(test)]
mod tests;
