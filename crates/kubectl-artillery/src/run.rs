//! `run`, `rerun`, `watch` and `stop`: create a test, follow it, print its result.

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use loadtest_api::v1alpha1::{LoadTest, LoadTestSpec};
use loadtest_results::thresholds;
use serde_json::{Value, json};

use crate::cli::{Follow, Output, Overrides, Rerun, Run, Stop, Watch};
use crate::error::{Error, Result};
use crate::manifest;
use crate::outcome::Outcome;
use crate::report_command;
use crate::session::Session;
use crate::text;
use crate::validate;
use crate::view::View;
use crate::watch::{End, follow};

/// The annotation of a run with the name of the test that was run first.
pub const RERUN_OF_ANNOTATION: &str = "loadtest.artillery.io/rerun-of";

/// The annotation with which `kubectl apply` records what it applied. It describes another object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The field manager of what a manifest contains besides the test.
const FIELD_MANAGER: &str = "kubectl-artillery";

/// A name must leave room for `-` and the index of the last worker in the 63 characters of a host name.
const MAX_NAME: usize = 63;

/// Runs a test from a manifest, a kustomization or the cluster.
///
/// # Errors
/// The manifest is invalid, the same test is still running, or the API server rejects something.
pub async fn run(session: Session, args: Run) -> Result<Outcome> {
    if let Some(name) = &args.name {
        return run_existing(session, name, &args).await;
    }
    let (text, source) = match (&args.filename, &args.kustomize) {
        (Some(path), _) => (manifest::read(path)?, path.display().to_string()),
        (None, Some(dir)) => (manifest::kustomize(dir)?, dir.display().to_string()),
        (None, None) => {
            return Err(Error::new(
                "Nothing to run: name a LoadTest, or use -f or -k.",
            ));
        }
    };
    let objects = manifest::objects(&text, &source)?;
    validate::objects(&objects, &source, args.overrides.environment.as_deref())?;
    let (mut tests, others): (Vec<_>, Vec<_>) = objects.into_iter().partition(manifest::is_test);
    let test = match tests.len() {
        1 => manifest::test(&tests.remove(0), &source)?,
        0 => {
            return Err(Error::new(format!("{source} has no LoadTest."))
                .advice("Create one: kubectl artillery init DIR"));
        }
        n => {
            let names: Vec<_> = tests.iter().map(manifest::name).collect();
            return Err(
                Error::new(format!("{source} has {n} LoadTests: {}.", names.join(", ")))
                    .advice("Run them one by one, with a file for each."),
            );
        }
    };
    let session = in_namespace(session, &test)?;
    let test = prepare(&session, test, &args.overrides).await?;
    for other in others {
        apply(&session, other).await?;
    }
    let test = create(&session, &test).await?;
    follow_to_end(&session, &test.name_any(), &args.follow, true).await
}

/// Runs a test of the cluster: starts it if it is suspended, follows it if it runs, and runs it again if it has ended.
async fn run_existing(session: Session, name: &str, args: &Run) -> Result<Outcome> {
    let test = session.test(name).await?;
    let phase = text::phase(&test);
    if phase.is_terminal() {
        let test = next_run(&session, &test, &args.overrides).await?;
        let test = create(&session, &test).await?;
        return follow_to_end(&session, &test.name_any(), &args.follow, true).await;
    }
    let namespace = &session.namespace;
    if args.overrides.is_any() {
        return Err(Error::new(format!("LoadTest {namespace}/{name} has not ended; it is {}. Its spec is not changed.", phase.as_str()))
            .advice(format!("Run it without changes of the spec, or wait for its end: kubectl artillery watch {name} -n {namespace}")));
    }
    let is_suspended = test.spec.suspend == Some(true);
    if is_suspended {
        patch_spec(&session, name, "start", &json!({"suspend": false})).await?;
    }
    eprintln!(
        "LoadTest {namespace}/{name} {}.",
        if is_suspended {
            "started: it was suspended"
        } else {
            "is already there, and is followed"
        }
    );
    follow_to_end(&session, name, &args.follow, is_suspended).await
}

/// Runs the spec of a test again.
///
/// # Errors
/// The test or a later run of it has not ended, or the API server rejects something.
pub async fn rerun(session: Session, args: Rerun) -> Result<Outcome> {
    let test = session.test(&args.name).await?;
    let test = next_run(&session, &test, &args.overrides).await?;
    let created = create(&session, &test).await?;
    let outcome = follow_to_end(&session, &created.name_any(), &args.follow, true).await?;
    if let Some(keep) = args.keep {
        delete_old_runs(&session, &first_run(&created), keep).await?;
    }
    Ok(outcome)
}

/// Follows a test.
///
/// # Errors
/// The test does not exist, or cannot be read.
pub async fn watch(session: &Session, args: &Watch) -> Result<Outcome> {
    follow_to_end(session, &args.name, &args.follow, false).await
}

/// Stops a test.
///
/// # Errors
/// The test does not exist, or the user may not change it.
pub async fn stop(session: &Session, args: &Stop) -> Result<Outcome> {
    let (namespace, name) = (&session.namespace, &args.name);
    let test = session.test(name).await?;
    if let Some(phase) = test.phase().filter(|phase| phase.is_terminal()) {
        println!(
            "LoadTest {namespace}/{name} has already ended: {}.",
            phase.as_str()
        );
        return Ok(Outcome::Passed);
    }
    request_stop(session, name).await?;
    println!("LoadTest {namespace}/{name} is being stopped: its workers receive SIGTERM.");
    Ok(Outcome::Passed)
}

async fn request_stop(session: &Session, name: &str) -> Result<()> {
    patch_spec(session, name, "stop", &json!({"stop": true})).await
}

/// Changes fields of the spec of a test. `verb` is what this does to the test, for the error.
async fn patch_spec(session: &Session, name: &str, verb: &str, fields: &Value) -> Result<()> {
    let patch = Patch::Merge(json!({"spec": fields}));
    let params = PatchParams::default();
    let patched = session.tests().patch(name, &params, &patch).await;
    let action = format!("{verb} LoadTest {}/{name}", session.namespace);
    patched
        .map(drop)
        .map_err(|error| session.error(&action, &error))
}

/// Follows a test to its end, and prints its result.
async fn follow_to_end(
    session: &Session,
    name: &str,
    options: &Follow,
    owns_test: bool,
) -> Result<Outcome> {
    let namespace = &session.namespace;
    if let Some(path) = &options.report {
        // Better now than after the test.
        report_command::format(path)?;
    }
    if options.detach {
        if options.output == Output::Text {
            println!("Follow it: kubectl artillery watch {name} -n {namespace}");
        } else {
            print!(
                "{}",
                serialized(&session.test(name).await?, options.output)?
            );
        }
        return Ok(Outcome::Passed);
    }
    let mut end = follow(session, name, options, owns_test).await?;
    if matches!(end, End::Stop) {
        request_stop(session, name).await?;
        end = follow(session, name, options, false).await?;
    }
    let test = match end {
        End::Finished(test) => test,
        End::Left(why) => {
            eprintln!("{why}. LoadTest {namespace}/{name} keeps running.");
            eprintln!("Follow it: kubectl artillery watch {name} -n {namespace}");
            eprintln!("Stop it:   kubectl artillery stop {name} -n {namespace}");
            return Ok(Outcome::Unfinished);
        }
        End::Stop => return Ok(Outcome::Unfinished),
    };
    print_end(&test, options.output)?;
    if let Some(path) = &options.report {
        let view = View::read(session, name).await?;
        report_command::write(&view, path, Timestamp::now())?;
        eprintln!("Report: {}", path.display());
    } else if options.output == Output::Text {
        println!("\nReport: kubectl artillery report {name} -n {namespace} -o html > {name}.html");
    }
    Ok(Outcome::of(&test))
}

fn print_end(test: &LoadTest, output: Output) -> Result<()> {
    if output == Output::Text {
        print!(
            "{}",
            text::result(test, text::use_colors(&std::io::stdout()))
        );
        return Ok(());
    }
    print!("{}", serialized(test, output)?);
    Ok(())
}

/// An object as JSON or YAML.
///
/// # Errors
/// It cannot be serialized.
pub fn serialized<T: serde::Serialize>(object: &T, output: Output) -> Result<String> {
    match output {
        Output::Yaml => {
            serde_yaml::to_string(object).map_err(|error| Error::new(error.to_string()))
        }
        Output::Json | Output::Text => serde_json::to_string_pretty(object)
            .map(|json| json + "\n")
            .map_err(|error| Error::new(error.to_string())),
    }
}

/// The session in the namespace of the test, which must be that of `-n`, as for kubectl.
fn in_namespace(mut session: Session, test: &LoadTest) -> Result<Session> {
    let Some(namespace) = test.namespace() else {
        return Ok(session);
    };
    if session.is_namespace_given && namespace != session.namespace {
        return Err(Error::new(format!(
            "LoadTest {} is in namespace {namespace}, and -n names {}.",
            test.name_any(),
            session.namespace
        ))
        .advice("Leave out -n, or remove metadata.namespace."));
    }
    session.namespace = namespace;
    Ok(session)
}

/// The test to create from a manifest: under a new name if it has already run.
async fn prepare(session: &Session, mut test: LoadTest, overrides: &Overrides) -> Result<LoadTest> {
    if let Some(name) = &test.metadata.name {
        let existing = session.tests().get_opt(name).await;
        let action = format!("read LoadTest {}/{name}", session.namespace);
        let existing = existing.map_err(|error| session.error(&action, &error))?;
        if existing.is_some() {
            return next_run(session, &test, overrides).await;
        }
    }
    test.status = None;
    overrides.apply(&mut test.spec)?;
    Ok(test)
}

/// The next run of a test: its spec under the next free name. Refused while a run of it has not ended, because the load would reach
/// the target twice.
async fn next_run(session: &Session, test: &LoadTest, overrides: &Overrides) -> Result<LoadTest> {
    let first = first_run(test);
    let namespace = &session.namespace;
    let runs = runs(session, &first).await?;
    let is_open = |run: &&LoadTest| !text::phase(run).is_terminal() && !is_template(run);
    if let Some(open) = runs.iter().find(is_open) {
        let name = open.name_any();
        let phase = text::phase(open).as_str();
        return Err(Error::new(format!(
            "LoadTest {namespace}/{name} has not ended; it is {phase}. A second run would double its load."
        ))
        .advice(format!(
            "Follow it: kubectl artillery watch {name} -n {namespace}. Or stop it first: kubectl artillery stop {name} -n {namespace}"
        )));
    }
    let mut spec = test.spec.clone();
    (spec.stop, spec.suspend) = (None, None);
    overrides.apply(&mut spec)?;
    let has_run = runs.iter().filter(|run| !is_template(run));
    let names: Vec<_> = has_run.map(ResourceExt::name_any).collect();
    let mut next = LoadTest::new(&next_name(&first, &names, spec.count), spec);
    next.metadata.labels.clone_from(&test.metadata.labels);
    let mut annotations = test.metadata.annotations.clone().unwrap_or_default();
    annotations.remove(LAST_APPLIED);
    annotations.insert(RERUN_OF_ANNOTATION.to_owned(), first);
    next.metadata.annotations = Some(annotations);
    Ok(next)
}

/// Whether a test never runs itself, because its spec suspends it, and only lends its spec to others.
fn is_template(test: &LoadTest) -> bool {
    let has_job = test
        .status
        .as_ref()
        .is_some_and(|status| status.job.is_some());
    test.spec.suspend == Some(true) && !has_job && !text::phase(test).has_started()
}

/// The name of the test that was run first.
fn first_run(test: &LoadTest) -> String {
    let first = test.annotations().get(RERUN_OF_ANNOTATION);
    first.cloned().unwrap_or_else(|| test.name_any())
}

/// A test and all its later runs.
async fn runs(session: &Session, first: &str) -> Result<Vec<LoadTest>> {
    let action = format!("list LoadTests in namespace {}", session.namespace);
    let tests = session.tests().list(&ListParams::default()).await;
    let tests = tests.map_err(|error| session.error(&action, &error))?;
    Ok(tests
        .items
        .into_iter()
        .filter(|test| first_run(test) == first)
        .collect())
}

/// The next name after those that are taken: `checkout-2` after `checkout`, `checkout-3` after that.
pub(crate) fn next_name(first: &str, taken: &[String], count: i32) -> String {
    let last_index = count.saturating_sub(1).to_string();
    let name = |number: u32| {
        let suffix = format!("-{number}");
        let room = MAX_NAME.saturating_sub(suffix.len() + 1 + last_index.len());
        let stem: String = first.chars().take(room).collect();
        format!("{}{suffix}", stem.trim_end_matches('-'))
    };
    let number = |name: &String| name.rsplit_once('-')?.1.parse::<u32>().ok();
    let later = taken
        .iter()
        .filter(|name| *name != first)
        .filter_map(number);
    let begin = u32::from(taken.iter().any(|name| name == first));
    name(later.max().unwrap_or(begin).saturating_add(1))
}

async fn create(session: &Session, test: &LoadTest) -> Result<LoadTest> {
    let name = manifest::name(&json!({"metadata": test.metadata}));
    let action = format!("create LoadTest {name} in namespace {}", session.namespace);
    let created = session.tests().create(&PostParams::default(), test).await;
    let created = created.map_err(|error| session.error(&action, &error))?;
    let (namespace, name) = (&session.namespace, created.name_any());
    let count = created.spec.count;
    let workers = if count == 1 { "worker" } else { "workers" };
    eprintln!("LoadTest {namespace}/{name} created with {count} {workers}.");
    Ok(created)
}

/// Applies an object that a manifest contains besides the test, such as the `ConfigMap` of the script.
async fn apply(session: &Session, mut object: Value) -> Result<()> {
    let name = manifest::name(&object);
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    let version = object["apiVersion"].as_str().unwrap_or_default().to_owned();
    let (group, version) = version.rsplit_once('/').unwrap_or(("", &version));
    let action = format!("apply {kind} {name}");
    let gvk = GroupVersionKind::gvk(group, version, &kind);
    let found = kube::discovery::pinned_kind(&session.client, &gvk).await;
    let (resource, capabilities) = found.map_err(|error| session.error(&action, &error))?;
    let namespace = object["metadata"]["namespace"]
        .as_str()
        .unwrap_or(&session.namespace)
        .to_owned();
    let api = match capabilities.scope {
        kube::discovery::Scope::Namespaced => {
            object["metadata"]["namespace"] = json!(namespace);
            kube::Api::<DynamicObject>::namespaced_with(
                session.client.clone(),
                &namespace,
                &resource,
            )
        }
        kube::discovery::Scope::Cluster => kube::Api::all_with(session.client.clone(), &resource),
    };
    let name = object["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    // What kubectl has applied before is owned by it.
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let applied = api.patch(&name, &params, &Patch::Apply(&object)).await;
    applied.map_err(|error| session.error(&action, &error))?;
    eprintln!("{kind} {namespace}/{name} applied.");
    Ok(())
}

/// Deletes the oldest finished runs of a test. The first one stays, because it is the one that is run again.
async fn delete_old_runs(session: &Session, first: &str, keep: usize) -> Result<()> {
    let runs = runs(session, first).await?;
    let mut finished: Vec<_> = runs
        .iter()
        .filter(|run| run.name_any() != first && text::phase(run).is_terminal())
        .collect();
    finished.sort_by_key(|run| run.creation_timestamp().map(|time| time.0));
    let excess = finished.len().saturating_sub(keep);
    for run in finished.iter().take(excess) {
        let name = run.name_any();
        let action = format!("delete LoadTest {}/{name}", session.namespace);
        let deleted = session
            .tests()
            .delete(&name, &DeleteParams::background())
            .await;
        deleted.map_err(|error| session.error(&action, &error))?;
        eprintln!(
            "LoadTest {}/{name} deleted: only {keep} finished runs are kept.",
            session.namespace
        );
    }
    Ok(())
}

impl Overrides {
    /// Whether anything is changed.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.count.is_some()
            || self.target.is_some()
            || self.environment.is_some()
            || !self.set.is_empty()
            || !self.threshold.is_empty()
    }

    /// Changes a spec.
    ///
    /// # Errors
    /// A threshold cannot be evaluated.
    pub fn apply(&self, spec: &mut LoadTestSpec) -> Result<()> {
        spec.count = self.count.unwrap_or(spec.count);
        if self.target.is_some() {
            spec.target.clone_from(&self.target);
        }
        if self.environment.is_some() {
            spec.environment.clone_from(&self.environment);
        }
        for (name, value) in &self.set {
            spec.variables
                .insert(name.clone(), Value::String(value.clone()));
        }
        for threshold in &self.threshold {
            thresholds::check(threshold)
                .map_err(|problem| Error::new(format!("--threshold: {problem}")))?;
            spec.thresholds.push(threshold.clone());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::next_name;

    #[test]
    fn runs_are_numbered_by_their_name() {
        let long = "x".repeat(61);
        for (first, taken, count, next) in [
            ("shop", &["shop"][..], 2, "shop-2".to_owned()),
            ("shop", &["shop", "shop-2", "shop-9"], 2, "shop-10".into()),
            ("shop", &[], 2, "shop-1".into()),
            ("shop", &["shop-1"], 2, "shop-2".into()),
            ("v-7", &["v-7"], 2, "v-7-2".into()),
            ("v-7", &["v-7", "v-7-2"], 2, "v-7-3".into()),
            (&long, &[&long], 1000, format!("{}-2", "x".repeat(57))),
        ] {
            let taken: Vec<_> = taken.iter().map(|name| (*name).to_owned()).collect();
            let name = next_name(first, &taken, count);
            assert_eq!(name, next);
            assert!(name.len() + 1 + (count - 1).to_string().len() <= 63);
        }
    }
}
