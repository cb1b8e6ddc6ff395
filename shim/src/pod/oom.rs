// SPDX-License-Identifier: Apache-2.0
//! Telling that a container was short of memory: as it happens, and once more before the exit that came of it.

#![forbid(unsafe_code)]

use std::os::fd::AsFd;
use std::rc::Rc;

use containerd_shim_protos::events::task::TaskOOM;
use corten::cgroup::oom::AGAIN as OOM_AGAIN;
use tokio::time::{sleep, timeout};

use super::Pod;
use crate::task::Task;
use crate::{log, ready};

impl Pod {
    /// Watches from before the container's first instruction until its group or its task is gone.
    pub async fn watch_oom(self: Rc<Self>, task: Rc<Task>) {
        // Held in the task: at init's end it is asked for the last time.
        let Some(fd) = task.oom.borrow().as_ref().and_then(|watch| watch.as_fd().try_clone_to_owned().ok())
        else {
            return;
        };
        let Some(fd) = ready::watched(fd, "kills for want of memory") else { return };
        let mut again = task.oom.borrow().as_ref().is_some_and(|watch| watch.mark().noticed);
        while task.init.ended().is_none() {
            if again {
                sleep(OOM_AGAIN).await;
            } else {
                let news = fd.readable();
                let ended = task.init.end();
                tokio::select! {
                    ready = news => match ready {
                        Ok(mut ready) => ready.clear_ready(),
                        Err(_) => return,
                    },
                    _ = ended => return,
                }
            }
            match self.oom_news(&task) {
                Some(more) => again = more,
                None => return,
            }
        }
    }

    /// Tells what is new; whether to ask again. `None` when there will be nothing more.
    fn oom_news(&self, task: &Task) -> Option<bool> {
        let mut watch = task.oom.borrow_mut();
        let news = match watch.as_mut()?.news() {
            Ok(news) => news,
            Err(error) => {
                log::warn(&format!("container {}: {error}", task.id));
                return None;
            }
        };
        if news.kills > 0 {
            let event = TaskOOM { container_id: task.id.clone(), ..Default::default() };
            self.events.push("/tasks/oom", "TaskOOM", &event);
        }
        (!news.gone).then_some(news.again)
    }

    /// Before the exit is told: v1 may need a moment to count the kill.
    pub async fn oom_at_end(&self, task: &Task) {
        let settle = async {
            while let Some(true) = self.oom_news(task) {
                sleep(OOM_AGAIN).await;
            }
        };
        let _ = timeout(OOM_AGAIN * 20, settle).await;
        task.oom.take();
    }
}
