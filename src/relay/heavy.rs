//! Work on big mails, on threads of its own: as many at work as there are cores, and of lower priority than those that carry everything
//! else. So a small mail neither waits for a thread that a big one has nor shares a core evenly with it.

use std::cell::RefCell;
use std::future::Future;
use std::sync::{Arc, LazyLock};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

/// Octets of content beyond which a mail's work is done here.
pub(super) const HEAVY: usize = 256 * 1024;
/// How many levels of niceness the threads stand behind the others: with every core wanted, about a tenth is theirs (`setpriority(2)`).
const BEHIND: i32 = 10;

tokio::task_local! {
    /// The place that work has.
    static PLACE: RefCell<Option<OwnedSemaphorePermit>>;
}

/// Where the threads come from: for the process, however many gateways there are in it. Nothing but threads is taken from it: sockets and
/// clocks are those of the runtime that asks, so that none of them waits for big mails. `None`: it could not be made.
static THREADS: LazyLock<Option<Runtime>> = LazyLock::new(|| {
    let built = Builder::new_current_thread().thread_name("heavy").on_thread_start(step_back).build();
    built.inspect_err(|error| tracing::error!(%error, "no threads of their own for big mails; they share others")).ok()
});

/// The calling thread alone, as Linux has it. Where that is not allowed the work is done all the same.
fn step_back() {
    let own = rustix::process::getpriority_process(None).unwrap_or(0);
    if let Err(error) = rustix::process::setpriority_process(None, own.saturating_add(BEHIND)) {
        tracing::debug!(%error, "work on big mails has the priority of everything else");
    }
}

/// Does work there; what it needs of a runtime it brings.
pub(super) fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    match &*THREADS {
        Some(runtime) => runtime.spawn_blocking(work),
        None => tokio::task::spawn_blocking(work),
    }
}

/// Gives back what holds so many octets, on another thread where that is much: the system takes its time to have them back. Not on one that
/// steps back: until then the memory is not free, and others that want some wait for it.
pub(super) fn let_go(octets: usize, held: impl Send + 'static) {
    if octets > HEAVY {
        drop(tokio::task::spawn_blocking(move || drop(held)));
    }
}

/// Places for heavy work, as many as there are cores. Cheap to clone.
#[derive(Clone)]
pub(super) struct Places(Arc<Semaphore>);

impl Places {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(std::thread::available_parallelism().map_or(2, usize::from))))
    }

    /// Does work there when there is a place. `None`: it ended in a defect, which is in the log.
    pub(super) async fn work<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let permit = self.0.clone().acquire_owned().await.ok()?;
        let (runtime, place) = (Handle::current(), RefCell::new(Some(permit)));
        let done = on_a_thread(move || runtime.block_on(PLACE.scope(place, work))).await;
        done.inspect_err(|error| tracing::error!(%error, "work on a message ended in a defect")).ok()
    }

    /// Waits for the network; meanwhile others have this work's place.
    pub(super) async fn aside<T>(&self, waiting: impl Future<Output = T>) -> T {
        let held = PLACE.try_with(|place| place.borrow_mut().take().is_some()).unwrap_or(false);
        let came = waiting.await;
        if held && let Ok(permit) = self.0.clone().acquire_owned().await {
            let _ = PLACE.try_with(|place| place.borrow_mut().replace(permit));
        }
        came
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn threads_for_it_step_back_and_what_waits_has_no_place() {
        let places = Places::new();
        let priority = || rustix::process::getpriority_process(None).unwrap();
        assert_eq!(places.work(async move { priority() }).await, Some((priority() + BEHIND).min(19)));
        // More of them than there are places, and all wait for the one that is begun last.
        let (tell, told) = tokio::sync::watch::channel(false);
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let (own, mut told) = (places.clone(), told.clone());
            let work = {
                let own = own.clone();
                async move { own.aside(async move { told.wait_for(|told| *told).await.is_ok() }).await }
            };
            waiting.spawn(async move { own.work(work).await });
        }
        while tell.receiver_count() < 51 {
            tokio::task::yield_now().await;
        }
        assert_eq!(places.work(async move { tell.send(true).is_ok() }).await, Some(true));
        assert!(waiting.join_all().await.into_iter().all(|one| one == Some(true)));
    }

    #[tokio::test]
    async fn a_defect_keeps_no_place() {
        let places = Places::new();
        for _ in 0..50 {
            assert_eq!(places.work(async { std::hint::black_box(None::<u8>).unwrap() }).await, None);
        }
        assert_eq!(places.work(async { 7 }).await, Some(7));
    }

    #[tokio::test]
    async fn what_is_much_is_given_back_by_another_thread() {
        struct Told(std::sync::mpsc::Sender<std::thread::ThreadId>);
        impl Drop for Told {
            fn drop(&mut self) {
                self.0.send(std::thread::current().id()).unwrap();
            }
        }
        let (tell, told) = std::sync::mpsc::channel();
        let_go(HEAVY, Told(tell.clone()));
        let_go(HEAVY + 1, Told(tell));
        let own = std::thread::current().id();
        let by: Vec<_> = told.iter().collect();
        assert_eq!((by.len(), by[0] == own, by[1] == own), (2, true, false));
    }
}
