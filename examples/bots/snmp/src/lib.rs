//! The logic of Grafolean's SNMP bot: reads devices, computes the values that their sensors ask for, and posts them.
//!
//! | module | is |
//! | --- | --- |
//! | [`expression`] | a sensor's expression over what was read, parsed once and evaluated for each row |
//! | [`template`] | a sensor's output path with its placeholders |
//! | [`details`] | the details of entities, credentials and sensors as the web page's forms store them |
//! | [`rates`] | counters to rates per second |
#![no_std]
#![forbid(unsafe_code)]

pub mod details;
pub mod expression;
pub mod network;
pub mod poll;
pub mod rates;
pub mod template;
