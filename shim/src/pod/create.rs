// SPDX-License-Identifier: Apache-2.0
//! `Create`: rootfs, descriptors, the container. What fails leaves nothing and sends no event.

#![forbid(unsafe_code)]

use std::cell::{Cell, OnceCell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use containerd_shim_protos::api::{CreateTaskRequest, CreateTaskResponse};
use containerd_shim_protos::events::task::{TaskCreate, TaskIO};
use containerd_shim_protos::protobuf::MessageField;
use corten::ask::Stdio;
use corten::state::check_id;
use tokio::sync::Mutex;
use tokio::task::spawn_local;

use super::{Pod, Server, watch};
use crate::driver::{Driver, LaunchedProcess, Peek, Wish};
use crate::io::{Owner, Prepared, StreamPaths, prepare};
use crate::options::Options;
use crate::process::TaskProcess;
use crate::ready::Once;
use crate::record::ShimRecord;
use crate::refusal::{Refusal, Result};
use crate::task::{Awaiting, Starts, Task};
use crate::threads::Crew;
use crate::{log, mounts, threads};

/// What the thread hands back.
struct Done {
    made: LaunchedProcess,
    driver: Driver,
    own_pids: bool,
}

/// What is there before the container is.
struct Begun {
    wish: Wish,
    driver: Driver,
    own_pids: bool,
    record: ShimRecord,
    /// Where its rootfs was mounted, if anything was.
    mounted: Option<PathBuf>,
}

impl Begun {
    /// Takes the mounts away again.
    fn unmount(mounted: Option<&Path>) {
        if let Some(point) = mounted {
            mounts::unmount_all(point);
        }
    }
}

impl Pod {
    pub async fn create(self: &Rc<Self>, request: CreateTaskRequest) -> Result<CreateTaskResponse> {
        check_id(&request.id)?;
        if self.tasks.borrow().contains_key(&request.id) || self.taken.borrow().contains_key(&request.id) {
            return Err(Refusal::exists(format!("container {} already exists", request.id)));
        }
        self.taken.borrow_mut().insert(request.id.clone(), false);
        let created = self.create_taken(&request).await;
        self.taken.borrow_mut().remove(&request.id);
        self.end_if_empty();
        created
    }

    /// A `Delete` for an id whose create is under way: its client waits no more, and nobody but us will ever know of the
    /// container. containerd calls it so when the time it has for a create is over.
    pub fn give_up_create(&self, id: &str) {
        if let Some(given_up) = self.taken.borrow_mut().get_mut(id) {
            *given_up = true;
        }
    }

    fn is_given_up(&self, id: &str) -> bool {
        self.taken.borrow().get(id) == Some(&true)
    }

    async fn create_taken(self: &Rc<Self>, request: &CreateTaskRequest) -> Result<CreateTaskResponse> {
        let options = Options::read(request.options.as_ref())?;
        let bundle = PathBuf::from(&request.bundle);
        if !bundle.is_absolute() || !bundle.is_dir() {
            return Err(Refusal::invalid(format!("bundle {:?} is no directory", request.bundle)));
        }
        let wanted = StreamPaths {
            terminal: request.terminal,
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
        };
        let owner = Owner {
            ids: (options.io_uid, options.io_gid),
            id: request.id.clone(),
            namespace: self.namespace.clone(),
            reaper: self.reaper.clone(),
        };
        let images = [&request.checkpoint, &options.criu_image_path];
        let images = images.into_iter().find(|path| !path.is_empty()).map(PathBuf::from);
        let mut wish = Wish {
            id: request.id.clone(),
            bundle: bundle.clone(),
            stdio: Stdio::default(),
            options,
            reaper: self.reaper.clone(),
        };
        let (namespace, server, rootfs) =
            (self.namespace.clone(), self.server.clone(), request.rootfs.clone());
        if let Some(images) = images {
            let begun = threads::run(move || begin(wish, &namespace, server, &rootfs)).await?;
            if self.is_given_up(&request.id) {
                let unmount = move || {
                    Begun::unmount(begun.mounted.as_deref());
                    Ok(())
                };
                threads::run(unmount).await?;
                return Err(given_up(&request.id));
            }
            return Ok(self.await_restore(request, wanted, owner, bundle, begun, images));
        }
        let (stdio, prepared) = prepare(&wanted, &owner).await?;
        wish.stdio = stdio;
        let done = threads::run(move || make(wish, &namespace, server, &rootfs)).await?;
        if self.is_given_up(&request.id) {
            return Err(self.undone(request, &bundle, done).await);
        }
        self.register(request, wanted, owner, bundle, prepared, done)
    }

    /// The container lives: from here on it is in the table, and ends like any other.
    fn register(
        self: &Rc<Self>,
        request: &CreateTaskRequest,
        wanted: StreamPaths,
        owner: Owner,
        bundle: PathBuf,
        prepared: Prepared,
        Done { made, driver, own_pids }: Done,
    ) -> Result<CreateTaskResponse> {
        let init = TaskProcess::new(String::new(), wanted);
        let task = new_task(request, bundle, owner, init, driver, own_pids);
        let pid = self.init_lives(&task, prepared, made);
        // Whoever watches it comes to that only once this is told: nothing is awaited in between.
        self.tell_created(request, &task);
        Ok(CreateTaskResponse { pid: pid as u32, ..Default::default() })
    }

    /// Init is there, made or restored: its output is moved, and its end and its want of memory are heard of. Returns its pid.
    pub(super) fn init_lives(
        self: &Rc<Self>,
        task: &Rc<Task>,
        prepared: Prepared,
        made: LaunchedProcess,
    ) -> i32 {
        let pidfd = task.init.born(made.pid, made.pidfd);
        match prepared.start(made.console) {
            Ok(streams) => drop(task.init.streams.replace(Some(streams))),
            Err(refusal) => log::warn(&format!("container {}: no output: {refusal}", task.id)),
        }
        if let Some(group) = made.group {
            let _ = task.group.set(Arc::new(group));
        }
        task.oom.replace(made.oom);
        spawn_local(self.clone().watch_oom(task.clone()));
        spawn_local(watch::init(self.clone(), task.clone(), pidfd));
        made.pid
    }

    /// There is a container of which nothing is there yet: `Start` restores it.
    fn await_restore(
        &self,
        request: &CreateTaskRequest,
        wanted: StreamPaths,
        owner: Owner,
        bundle: PathBuf,
        Begun { wish, driver, own_pids, .. }: Begun,
        images: PathBuf,
    ) -> CreateTaskResponse {
        let init = TaskProcess::new(String::new(), wanted);
        let task = new_task(request, bundle, owner, init, driver, own_pids);
        task.awaiting.replace(Some(Awaiting { wish, images }));
        self.tell_created(request, &task);
        CreateTaskResponse::default()
    }

    fn tell_created(&self, request: &CreateTaskRequest, task: &Rc<Task>) {
        self.tasks.borrow_mut().insert(task.id.clone(), task.clone());
        self.shut_down.set(false);
        self.events.push("/tasks/create", "TaskCreate", &created(request, task.init.pid.get()));
    }

    /// Takes back what was made for a client that has given up.
    async fn undone(
        &self,
        request: &CreateTaskRequest,
        bundle: &Path,
        Done { made, driver, .. }: Done,
    ) -> Refusal {
        let (id, point) = (request.id.clone(), (!request.rootfs.is_empty()).then(|| bundle.join("rootfs")));
        let removed = threads::run(move || {
            let removed = driver.delete(&id);
            Begun::unmount(point.as_deref());
            removed
        });
        if let Err(refusal) = removed.await {
            log::warn(&format!("container {}: its create was given up: {refusal}", request.id));
        }
        self.reaper.kill(made.pidfd, made.pid).await;
        given_up(&request.id)
    }
}

fn given_up(id: &str) -> Refusal {
    Refusal::state(format!("the create of container {id} was given up by its client"))
}

pub(super) fn new_task(
    request: &CreateTaskRequest,
    bundle: PathBuf,
    owner: Owner,
    init: Rc<TaskProcess>,
    driver: Driver,
    own_pids: bool,
) -> Rc<Task> {
    Rc::new(Task {
        id: request.id.clone(),
        bundle,
        driver,
        owner,
        mounted: !request.rootfs.is_empty(),
        own_pids,
        group: OnceCell::new(),
        oom: RefCell::default(),
        awaiting: RefCell::default(),
        init,
        execs: RefCell::default(),
        paused: Cell::new(false),
        turn: Mutex::new(()),
        starts: Starts::default(),
        starters: Crew::default(),
        askers: Crew::default(),
        over: Once::default(),
        abandoned: Once::default(),
    })
}

fn created(request: &CreateTaskRequest, pid: i32) -> TaskCreate {
    let io = TaskIO {
        stdin: request.stdin.clone(),
        stdout: request.stdout.clone(),
        stderr: request.stderr.clone(),
        terminal: request.terminal,
        ..Default::default()
    };
    TaskCreate {
        container_id: request.id.clone(),
        bundle: request.bundle.clone(),
        rootfs: request.rootfs.clone(),
        io: MessageField::some(io),
        checkpoint: request.checkpoint.clone(),
        pid: pid as u32,
        ..Default::default()
    }
}

/// On a verb's thread: what goes before a create, and before a restore. The record first, so that `delete` knows where to look
/// whatever happens next.
fn begin(
    wish: Wish,
    namespace: &str,
    server: Server,
    rootfs: &[containerd_shim_protos::types::mount::Mount],
) -> Result<Begun> {
    let peek = Peek::read(&wish.bundle);
    let systemd = peek.systemd(&wish.options);
    let driver = Driver::new(&wish.options, namespace, systemd, &wish.bundle);
    let record = ShimRecord {
        version: 1,
        id: wish.id.clone(),
        address: server.address,
        server: server.process,
        options: wish.options.clone(),
        systemd,
        ..ShimRecord::default()
    };
    let bundle = wish.bundle.clone();
    record.begin(&bundle)?;
    let point = bundle.join("rootfs");
    mounts::mount_all(rootfs, &point)?;
    let mounted = (!rootfs.is_empty()).then_some(point);
    Ok(Begun { wish, driver, own_pids: peek.own_pids(), record, mounted })
}

/// On a verb's thread: the whole of a create.
fn make(
    wish: Wish,
    namespace: &str,
    server: Server,
    rootfs: &[containerd_shim_protos::types::mount::Mount],
) -> Result<Done> {
    let bundle = wish.bundle.clone();
    let Begun { wish, driver, own_pids, mut record, mounted } = begin(wish, namespace, server, rootfs)?;
    match driver.create(wish) {
        Ok(made) => {
            record.pid = made.pid;
            // The container is there, whether `delete` is to know its pid or not.
            if let Err(error) = record.replace(&bundle) {
                log::warn(&format!("container {}: {error}", record.id));
            }
            Ok(Done { made, driver, own_pids })
        }
        Err(refusal) => {
            Begun::unmount(mounted.as_deref());
            Err(refusal)
        }
    }
}
