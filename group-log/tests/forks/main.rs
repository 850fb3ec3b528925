//! The fork rules: the fourteen ways in which earlier ones broke, and a search through small worlds for a fifteenth.
#![allow(clippy::unwrap_used, reason = "a panic is the report")]

mod search;
mod sim;
mod units;
mod ways;
