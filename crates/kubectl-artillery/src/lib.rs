//! `kubectl artillery`: runs load tests, follows them, and reports and compares their results.
//!
//! It has the rights of its user, and no others. Whatever it judges, it judges with the crates of the operator.

// A test and its text are the subject of everything here.
#![allow(clippy::similar_names)]

pub mod cli;
pub mod compare;
pub mod error;
pub mod init;
pub mod list;
pub mod logs;
pub mod manifest;
pub mod outcome;
pub mod report;
pub mod report_command;
pub mod run;
pub mod session;
pub mod text;
pub mod validate;
pub mod view;
pub mod watch;
