//! Where operations and questions of a host go that are to run elsewhere (`_on`): on another host, or on the controller.
//!
//! A host of the run is shared, with its connection and what is known of it. Any other place is connected to when it is first needed, once in a run.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use infra_core::connection::{Connect, ConnectError, Connection};
use infra_core::diagnostic::Diagnostic;
use infra_core::facts::Lookup;
use infra_core::host::{Connector, Host, HostId};
use infra_core::inventory::Inventory;
use infra_core::late::Place;
use infra_core::registry::Registry;
use infra_core::script::{Answer, FactRequest, OperationCall};
use infra_core::secret::Secrets;
use infra_core::template::InventoryScope;
use tokio::sync::{OnceCell, Semaphore};

use crate::LockSettings;
use crate::fact_store::Asked;
use crate::host_run::HostRun;
use crate::judgement::placed;
use crate::local_files::LocalFiles;
use crate::locking::HostLock;

/// The name of the controller as a place.
const CONTROLLER: &str = "@local";

type Reached = Result<Arc<HostRun>, ConnectError>;

/// All places of a run.
pub(crate) struct Places {
    connect: Arc<dyn Connect>,
    inventory: Arc<Inventory>,
    registry: Arc<Registry>,
    locals: Arc<LocalFiles>,
    scope: InventoryScope,
    /// The hosts of the run, or why there is none: known once all of them were connected to.
    selected: OnceLock<BTreeMap<HostId, Reached>>,
    /// The others, each connected to once.
    others: Mutex<BTreeMap<Place, Arc<OnceCell<Reached>>>>,
    /// The connections to others, for whoever closes them.
    opened: Mutex<Vec<Arc<dyn Connection>>>,
    /// The hosts of the run that are a place of others.
    shared: Mutex<BTreeMap<HostId, Arc<dyn Connection>>>,
    /// The places that each host used, by their names.
    used: Mutex<BTreeMap<HostId, BTreeMap<String, Arc<HostRun>>>>,
    handshakes: Semaphore,
    lock: Option<LockSettings>,
    /// Whether all that is in flight was killed: what is reached after that starts nothing.
    killed: AtomicBool,
    secrets: Secrets,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Places {
    /// Nothing is connected to yet; at most `handshakes` are later, at once. What changes a place does so under its lock, as `lock` says.
    pub(crate) fn new(
        connect: Arc<dyn Connect>,
        inventory: Arc<Inventory>,
        registry: Arc<Registry>,
        handshakes: usize,
        lock: Option<LockSettings>,
        secrets: Secrets,
    ) -> Self {
        Self {
            connect,
            scope: InventoryScope::new(inventory.clone()),
            inventory,
            registry,
            locals: Arc::default(),
            selected: OnceLock::new(),
            others: Mutex::default(),
            opened: Mutex::default(),
            shared: Mutex::default(),
            used: Mutex::default(),
            handshakes: Semaphore::new(handshakes.max(1)),
            lock,
            killed: AtomicBool::new(false),
            secrets,
        }
    }

    /// A host that was reached.
    pub(crate) fn reached(&self, host: Arc<Host>, connection: Arc<dyn Connection>) -> Arc<HostRun> {
        Arc::new(HostRun {
            host,
            connection,
            lock: HostLock::new(self.lock.clone()),
            registry: self.registry.clone(),
            locals: self.locals.clone(),
            inventory: self.scope.clone(),
            facts: Mutex::default(),
            overlooks: AtomicBool::new(false),
            secrets: self.secrets.clone(),
        })
    }

    /// Tells a connection with what the run claims the host that it leads to.
    pub(crate) fn claim(&self, host: &Host, connection: &dyn Connection) {
        connection.claim(self.lock.as_ref().map(|lock| HostLock::claim(lock, host)));
    }

    /// All hosts of the run were connected to: these are they, and why others could not be reached.
    pub(crate) fn selected(&self, reached: &BTreeMap<HostId, Arc<HostRun>>, unreachable: BTreeMap<HostId, ConnectError>) {
        let reached = reached.iter().map(|(host, run)| (*host, Ok(run.clone())));
        let unreachable = unreachable.into_iter().map(|(host, error)| (host, Err(error)));
        let _ = self.selected.set(reached.chain(unreachable).collect());
    }

    /// A place as a host sees it: none where it is the host itself.
    pub(crate) fn seen_from(own: &HostRun, place: Option<Place>) -> Option<Place> {
        place.filter(|place| match place {
            Place::Host(host) => *host != own.host.id,
            Place::Controller => own.host.connector != Connector::Local,
        })
    }

    /// The name of a place for people.
    pub(crate) fn name(&self, place: Place) -> String {
        self.host(place).name.clone()
    }

    fn host(&self, place: Place) -> Arc<Host> {
        match place {
            Place::Host(host) => self.inventory.by_id(host).clone(),
            Place::Controller => Arc::new(Host::new(HostId(u32::MAX), CONTROLLER, Connector::Local, "")),
        }
    }

    /// What runs at a place, seen from a host; the place is connected to where it was not yet.
    ///
    /// # Errors
    /// Where and why connecting ended, the same for everyone who asks.
    pub(crate) async fn at(&self, own: &Arc<HostRun>, place: Option<Place>) -> Reached {
        let Some(place) = Self::seen_from(own, place) else { return Ok(own.clone()) };
        let reached = self.reach(place).await;
        if let Ok(run) = &reached {
            locked(&self.used).entry(own.host.id).or_default().insert(run.host.name.clone(), run.clone());
        }
        reached
    }

    /// The places that a host used so far, by their names.
    pub(crate) fn used_by(&self, host: HostId) -> BTreeMap<String, Arc<HostRun>> {
        locked(&self.used).get(&host).cloned().unwrap_or_default()
    }

    /// The place of this name.
    pub(crate) fn named(&self, name: &str) -> Option<Place> {
        let host = self.inventory.hosts.iter().find(|host| host.name == name);
        host.map(|host| Place::Host(host.id)).or_else(|| (name == CONTROLLER).then_some(Place::Controller))
    }

    async fn reach(&self, place: Place) -> Reached {
        let of_the_run = |(id, reached): (&HostId, &Reached)| {
            let same = match (place, reached) {
                (Place::Host(host), _) => host == *id,
                (Place::Controller, Ok(run)) => run.host.connector == Connector::Local,
                (Place::Controller, Err(_)) => false,
            };
            same.then(|| reached.clone())
        };
        if let Some(reached) = self.selected.get().into_iter().flatten().find_map(of_the_run) {
            if let Ok(run) = &reached {
                locked(&self.shared).insert(run.host.id, run.connection.clone());
                self.too_late(&run.connection).await;
            }
            return reached;
        }
        let cell = locked(&self.others).entry(place).or_default().clone();
        let connecting = async {
            let host = self.host(place);
            let connection = self.open(&host).await?;
            Ok(self.reached(host, connection))
        };
        cell.get_or_init(|| connecting).await.clone()
    }

    /// Whether others use this host as a place, so that ending all that runs on its connection would end theirs.
    pub(crate) fn is_shared(&self, host: HostId) -> bool {
        locked(&self.shared).contains_key(&host)
    }

    /// A connection of its own to where something runs already.
    ///
    /// # Errors
    /// As [`Places::at`].
    pub(crate) async fn open(&self, host: &Arc<Host>) -> Result<Arc<dyn Connection>, ConnectError> {
        let _permit = self.handshakes.acquire().await;
        let connection = self.connect.connect(host).await?;
        self.claim(host, &*connection);
        locked(&self.opened).push(connection.clone());
        self.too_late(&connection).await;
        Ok(connection)
    }

    /// A place that is reached when everything was killed: nothing is to start there.
    async fn too_late(&self, connection: &Arc<dyn Connection>) {
        if self.killed.load(Ordering::SeqCst) {
            connection.kill().await;
        }
    }

    /// Nothing is known any more of the places that are no hosts of the run.
    pub(crate) fn forget_facts(&self) {
        let others: Vec<_> = locked(&self.others).values().cloned().collect();
        others.iter().filter_map(|cell| cell.get()?.as_ref().ok()).for_each(|run| run.forget_facts());
    }

    /// The connections that were opened here, to be closed.
    pub(crate) fn opened(&self) -> Vec<Arc<dyn Connection>> {
        locked(&self.opened).clone()
    }

    /// All connections on which something may run for another host, to be killed: on what is reached from now on nothing is started.
    pub(crate) fn for_killing(&self) -> Vec<Arc<dyn Connection>> {
        self.killed.store(true, Ordering::SeqCst);
        let mut all = self.opened();
        all.extend(locked(&self.shared).values().cloned());
        all
    }

    /// Answers a script about its host, or about the places it names: as they stand now, never as they will be. What is asked of one place is read in one
    /// request.
    ///
    /// # Errors
    /// Why the host itself can no longer be asked. That of another place is an answer.
    pub(crate) async fn ask(&self, own: &Arc<HostRun>, requests: Vec<FactRequest>) -> Result<Vec<Answer>, String> {
        let mut by_place: BTreeMap<Option<Place>, Vec<(usize, Asked)>> = BTreeMap::new();
        let count = requests.len();
        for (at, request) in requests.into_iter().enumerate() {
            let place = Self::seen_from(own, request.on);
            by_place.entry(place).or_default().push((at, Asked::new(request.fact, &request.context)));
        }
        let mut answers: Vec<Answer> = vec![Err("the host gave no answer to it".to_owned()); count];
        for (place, asked) in by_place {
            let lost = match self.at(own, place).await {
                Ok(run) => match run.gather(asked.iter().map(|(_, one)| one.clone()).collect()).await {
                    Ok(()) => {
                        let store = run.store();
                        for (at, one) in asked {
                            match store.lookup(&one) {
                                Lookup::Known(value) => answers[at] = Ok(value),
                                Lookup::Failed(message) => answers[at] = Err(message),
                                Lookup::Missing | Lookup::Unknown(_) => {}
                            }
                        }
                        continue;
                    }
                    Err(lost) => lost.to_string(),
                },
                Err(error) => error.to_string(),
            };
            let Some(place) = place else { return Err(lost) };
            for (at, _) in asked {
                answers[at] = Err(format!("{}: {lost}", self.name(place)));
            }
        }
        Ok(answers)
    }
}

/// Where the calls of one host run.
pub(crate) struct Sites {
    own: Arc<HostRun>,
    others: BTreeMap<Place, Arc<HostRun>>,
}

impl AsRef<Self> for Sites {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl Sites {
    pub(crate) fn new(own: Arc<HostRun>) -> Self {
        Self { own, others: BTreeMap::new() }
    }

    /// The host itself.
    pub(crate) fn own(&self) -> &Arc<HostRun> {
        &self.own
    }

    /// The place of a call; none where it is the host itself.
    pub(crate) fn place(&self, call: &OperationCall) -> Option<Place> {
        Places::seen_from(&self.own, call.on)
    }

    /// What the call runs on.
    pub(crate) fn of(&self, call: &OperationCall) -> &Arc<HostRun> {
        match self.place(call) {
            Some(place) => self.others.get(&place).expect("the places of all calls are reached before they are planned"),
            None => &self.own,
        }
    }

    /// The places that are the controller, as this host sees them.
    pub(crate) fn controllers(&self) -> Vec<Option<Place>> {
        if self.own.host.connector == Connector::Local {
            return vec![None];
        }
        let local = |(place, run): (&Place, &Arc<HostRun>)| {
            (*place != Place::Controller && run.host.connector == Connector::Local).then_some(Some(*place))
        };
        [Some(Place::Controller)].into_iter().chain(self.others.iter().filter_map(local)).collect()
    }

    /// Reaches the places of these calls.
    ///
    /// # Errors
    /// The first that cannot be reached, with the call that needs it.
    pub(crate) async fn reach(&mut self, calls: &[OperationCall], places: &Places) -> Result<(), Box<Diagnostic>> {
        for call in calls {
            let Some(place) = self.place(call) else { continue };
            if self.others.contains_key(&place) {
                continue;
            }
            match places.at(&self.own, Some(place)).await {
                Ok(run) => drop(self.others.insert(place, run)),
                Err(error) => {
                    let message = format!("{}, where «{}» is to run (`_on`), is {error}", places.name(place), call.title());
                    return Err(Box::new(placed(call, Diagnostic::host(message).maybe_hint(error.hint.clone()))));
                }
            }
        }
        Ok(())
    }
}
