//! An operator that runs distributed Artillery load tests: a `LoadTest` becomes an Indexed Job of Artillery workers, and
//! its status and events tell how they fare.
//!
//! The way of the data, and of a reader: **watch -> observe -> decide -> report -> apply**. [`controller`] watches and
//! holds a reconcile together; the modules marked pure know no client and no clock, and hold what is worth testing.

// What users write and read.
pub mod api;
pub mod settings;

// Watch: what happens in the cluster, and which tests it concerns. `queue` is pure.
pub mod context;
pub mod controller;
pub mod queue;
pub mod waiting;

// Observe: what there is of a test. `index` and `progress` are pure.
pub mod index;
pub mod observe;
pub mod progress;

// Decide: what is to be done. All pure.
pub mod conditions;
pub mod decide;
pub mod duration;
pub mod job;
pub mod results;
pub mod script;
pub mod verdict;
pub mod worker;

// Report and apply: events and status, then the Job.
pub mod apply;
pub mod report;

// Around it.
pub mod connection;
pub mod error;
pub mod lease;
pub mod server;
pub mod telemetry;

// Metrics: what is counted, and who may read it.
pub mod authorize;
pub mod metrics;
pub mod process;
pub mod requests;
pub mod tls;
