//! Decodes images on threads of its own, as many at a time as there is memory for.
//!
//! Not on the runtime's threads, which are many: the allocator keeps for each thread what it has freed, and in the end
//! every one of them would hold the memory of a decoded image.

use super::{
    Problem,
    inspect::{Picture, Undecoded},
};
use std::{
    fs::File,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError, mpsc},
};
use tokio::sync::{Semaphore, oneshot};

/// Threads; so many images are decoded at a time.
const THREADS: usize = 2;
/// Memory for images that are being decoded, in KiB. One that needs more is decoded alone.
const MEMORY_KIB: u32 = 20 << 10;

type Job = Box<dyn FnOnce() + Send>;

/// The threads, which end when it is dropped.
pub(super) struct Decoders {
    jobs: mpsc::Sender<Job>,
    memory: Arc<Semaphore>,
}

impl Decoders {
    /// Starts the threads.
    pub(super) fn start() -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..THREADS {
            let queue = Arc::clone(&queue);
            std::thread::Builder::new().name("decode-image".into()).spawn(move || work(&queue))?;
        }
        Ok(Self { jobs, memory: Arc::new(Semaphore::new(MEMORY_KIB as usize)) })
    }

    /// Decodes an image; answers its file, too. Of images, only those for which there is memory are queued.
    pub(super) async fn decode(
        &self,
        image: Undecoded,
        mut file: File,
    ) -> Result<(File, Result<Picture, String>), Problem> {
        let kib = u32::try_from(image.bytes() >> 10).unwrap_or(u32::MAX).clamp(1, MEMORY_KIB);
        let memory = Arc::clone(&self.memory).acquire_many_owned(kib).await;
        let (done, decoded) = oneshot::channel();
        let job = Box::new(move || {
            let picture = image.decode(&mut file);
            drop(memory);
            let _ = done.send((file, picture));
        });
        let failed = || Problem::Node(io::Error::other("the image decoder has failed"));
        self.jobs.send(job).map_err(|_| failed())?;
        decoded.await.map_err(|_| failed())
    }
}

fn work(queue: &Mutex<mpsc::Receiver<Job>>) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // A panic is the end of this image, which its caller sees, and not of the thread.
        let _ = catch_unwind(AssertUnwindSafe(job));
    }
}
