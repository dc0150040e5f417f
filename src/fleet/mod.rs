//! Many moves at once: which VM goes to which host, in what order, and how long it takes together.
//!
//! Pure: the planner reads a [`Fleet`] and asks an [`Oracle`] about single moves. That oracle is the same rules and the
//! same forecast as `vmgate check`, so that a plan holds no move that the gate would refuse on the same facts.

mod groups;
mod model;
mod place;
mod plan;
mod room;
mod schedule;

pub use model::{
    Affinity, Fleet, FleetHost, FleetVm, GroupScope, HostId, Limits, Resource, Togetherness, VmId, need,
};
pub use place::{Banned, Oracle, Placement, Ruling, Unplaced};
pub use plan::{Plan, PlanRequest, Wave, evacuate, rolling};
pub use schedule::{Schedule, Scheduled, schedule};

#[cfg(test)]
mod tests;
