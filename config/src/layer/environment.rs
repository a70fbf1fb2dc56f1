//! Variables `SPILLWAY_<PATH>` to a tree. The name is the path in upper case, `__` between its levels.

use std::ffi::OsString;

use super::{Item, Layer, Tree, Value};
use crate::{Place, Problem};

/// What every variable of ours begins with.
const PREFIX: &str = "SPILLWAY_";

/// The log filter: read by the logger at its start, before there is a configuration.
const LOG_FILTER: &str = "SPILLWAY_LOG";

/// The tree of the variables, and what is wrong or odd with those that have no place in it.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    pub(crate) tree: Tree,
    pub(crate) problems: Vec<Problem>,
    pub(crate) warnings: Vec<Problem>,
}

impl Environment {
    /// Picks our variables from the whole environment. Their order does not matter.
    pub(crate) fn read<K, V>(variables: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: Into<OsString>,
        V: Into<OsString>,
    {
        let names_and_values = variables.into_iter().filter_map(|(name, value)| {
            let name = name.into().into_string().ok()?;
            (name.starts_with(PREFIX) && name != LOG_FILTER).then(|| (name, value.into()))
        });
        let mut ours: Vec<(String, OsString)> = names_and_values.collect();
        ours.sort();
        let mut environment = Self::default();
        for (name, value) in ours {
            environment.add(name, value);
        }
        environment
    }

    fn add(&mut self, name: String, value: OsString) {
        let Ok(value) = value.into_string() else {
            let fix = "write the value in UTF-8, or name a file with the value in SPILLWAY_…_FILE";
            self.problems.push(problem(name, "not UTF-8", fix));
            return;
        };
        if is_kubernetes_service(&name, &value) {
            let what = "ignored: looks like one that Kubernetes sets for a service of this name";
            let fix = "set enableServiceLinks: false for the pod";
            self.warnings.push(problem(name, what, fix));
            return;
        }
        let path = name.strip_prefix(PREFIX).unwrap_or_default();
        if path.split("__").any(str::is_empty) || path != path.to_uppercase() {
            let fix = "write SPILLWAY_ and the path of the key in upper case, with two underscores between its levels, \
                       for example SPILLWAY_KAFKA__BOOTSTRAP_SERVERS";
            self.problems.push(problem(name, "not the name of a setting", fix));
            return;
        }
        let path = path.to_lowercase();
        let place = Place::Environment { variable: name };
        let levels: Vec<&str> = path.split("__").collect();
        if let Err(shorter) = insert(&mut self.tree, &levels, value, &place) {
            let what = format!("contradicts {shorter}, which is said to be the whole table");
            let fix = "keep one of the two".to_owned();
            self.problems.push(Problem { place, key: None, value: None, what, fix });
        }
    }
}

/// Puts a value at its path. A variable that claims one of the levels above for itself is in the way, and returned.
fn insert(tree: &mut Tree, levels: &[&str], value: String, place: &Place) -> Result<(), Place> {
    let item = |value| Item { value, place: place.clone(), key_place: place.clone(), layer: Layer::Environment };
    let [level, deeper @ ..] = levels else { return Ok(()) };
    if deeper.is_empty() {
        tree.insert((*level).to_owned(), item(Value::Untyped(value)));
        return Ok(());
    }
    let entry = tree.entry((*level).to_owned()).or_insert_with(|| item(Value::Table(Tree::new())));
    match &mut entry.value {
        Value::Table(below) => insert(below, deeper, value, place),
        _ => Err(entry.place.clone()),
    }
}

/// Kubernetes tells every pod of a namespace about its services: a service `spillway-collector` becomes
/// `SPILLWAY_COLLECTOR_SERVICE_HOST`, `SPILLWAY_COLLECTOR_PORT=udp://…` and more. Nobody wrote them as settings.
fn is_kubernetes_service(name: &str, value: &str) -> bool {
    let is_url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    let is_port = name.contains("_PORT_") && ["_TCP", "_UDP", "_SCTP"].iter().any(|protocol| name.contains(protocol));
    !name.contains("__")
        && (name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT") || (name.ends_with("_PORT") && is_url) || is_port)
}

fn problem(variable: String, what: &str, fix: &str) -> Problem {
    Problem { place: Place::Environment { variable }, key: None, value: None, what: what.to_owned(), fix: fix.to_owned() }
}
