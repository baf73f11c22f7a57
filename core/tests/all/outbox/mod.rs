//! The outbox against its rules, one by one, and against a model of the backend, on simulated time.

mod model;
mod rig;
mod rules;
mod stored;
