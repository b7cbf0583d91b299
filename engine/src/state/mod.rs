//! State: what operators keep beyond an epoch.

/// Opens the stores of one worker.
#[derive(Default)]
pub struct StateAccess {}
