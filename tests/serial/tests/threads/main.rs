//! Whose threads compute. The tests count the threads of the whole process, so they run one after
//! another.

use skipgrad::{
    Result, Rng, Tensor,
    autograd::{State, Tape},
    models::{ResNet, ResNetConfig},
    nn::Module,
    optim::{Optimizer, Sgd},
};
use skipgrad_serial_tests as serial;
use std::{
    process::ExitCode,
    sync::{
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

/// Threads of a user who trains or runs one model on each.
const USERS: usize = 4;
/// Number of threads of a pool: no divisor of anything here, and unlikely to be the machine's own
/// number.
const POOL: usize = 3;

fn main() -> ExitCode {
    serial::run(vec![
        // First, while the global pool has not been built.
        serial::test("threads::installed_pool_does_all_of_the_work", installed_pool_does_all_of_the_work),
        serial::test(
            "threads::models_on_their_own_threads_share_the_global_pool",
            models_share_the_global_pool,
        ),
        serial::test("threads::one_model_serves_many_threads", one_model_serves_many_threads),
    ])
}

/// Large enough that every kernel cuts its work into several tasks, in all directions and by
/// Winograd's algorithm too.
fn images(seed: usize) -> Result<Tensor> {
    Tensor::normal([32, 32, 32, 3], 1.0, &mut Rng::seed(seed as u64))
}

fn model(seed: usize) -> Result<ResNet> {
    let config = ResNetConfig::cifar_paper(8, 10)?.stages([(16, 1), (32, 2)]);
    ResNet::new(&config, &mut Rng::seed(seed as u64))
}

/// Two training steps and an evaluation: the logits and all weights and statistics.
fn work(seed: usize) -> Result<Vec<Tensor>> {
    let (mut model, images) = (model(seed)?, images(seed)?);
    let mut sgd = Sgd::new(0.05).momentum(0.9).weight_decay(5e-4);
    for step in 0..2 {
        let tape = Tape::train(Rng::seed(step));
        let loss = model.forward(&tape.input(images.clone()))?.cross_entropy(&[seed; 32])?;
        let mut updates = loss.backward()?;
        updates.clip_global_norm(1.0);
        sgd.step(&mut model, updates)?;
    }
    let mut results = vec![evaluate(&model, &images)?];
    results.extend(model.export().into_values());
    Ok(results)
}

fn evaluate(model: &ResNet, images: &Tensor) -> Result<Tensor> {
    Ok(model.forward(&Tape::eval().input(images.clone()))?.value().clone())
}

/// Every user's work, done alone in a pool of its own.
fn work_alone() -> Result<Vec<Vec<Tensor>>> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(POOL).build().unwrap();
    (0..USERS).map(|seed| pool.install(|| work(seed))).collect()
}

fn installed_pool_does_all_of_the_work() -> Result<()> {
    let (alone, most) = watched(work_alone);
    assert_at_most(most, POOL);
    alone.map(drop)
}

/// Threads that the global pool has started.
static STARTED: AtomicUsize = AtomicUsize::new(0);

fn models_share_the_global_pool() -> Result<()> {
    let alone = work_alone()?;
    // The global pool is built when work first reaches it, and cannot be built twice.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(POOL).start_handler(|_| {
        STARTED.fetch_add(1, Relaxed);
    });
    pool.build_global().expect("no work has reached the global pool");
    let (together, most) = watched(|| {
        thread::scope(|scope| {
            let users: Vec<_> = (0..USERS).map(|seed| scope.spawn(move || work(seed))).collect();
            users.into_iter().map(|user| user.join().unwrap()).collect::<Result<Vec<_>>>()
        })
    });
    assert!(together? == alone, "what others do does not change a bit");
    // The threads of the global pool were there before, or start now.
    assert_at_most(most, USERS + POOL);
    assert_eq!(STARTED.load(Relaxed), POOL);
    Ok(())
}

fn one_model_serves_many_threads() -> Result<()> {
    let (model, images) = (model(0)?, images(9)?);
    let alone = evaluate(&model, &images)?;
    let ((), most) = watched(|| {
        thread::scope(|scope| {
            for _ in 0..USERS {
                scope.spawn(|| {
                    for _ in 0..3 {
                        assert!(evaluate(&model, &images).unwrap() == alone, "the same bits for everybody");
                    }
                });
            }
        });
    });
    assert_at_most(most, USERS);
    Ok(())
}

/// Runs `f` and watches how many threads the process has meanwhile, beyond those that it had
/// before: the most that were seen. `None` where the system does not say.
fn watched<T>(f: impl FnOnce() -> T) -> (T, Option<usize>) {
    let before = threads();
    // Its end, when `f` returns or panics, ends the watch.
    let (running, end) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let watcher = scope.spawn(move || {
            let mut most = None;
            while end.recv_timeout(Duration::from_micros(200)) == Err(RecvTimeoutError::Timeout) {
                most = most.max(threads());
            }
            most
        });
        let running = running;
        let result = f();
        drop(running);
        let most = watcher.join().unwrap();
        // The watcher is a thread as well.
        (result, most.zip(before).map(|(most, before)| most.saturating_sub(before + 1)))
    })
}

fn assert_at_most(most: Option<usize>, expected: usize) {
    if let Some(most) = most {
        assert!(most <= expected, "{most} threads more than before, of which {expected} have a reason");
    }
}

/// How many threads this process has.
fn threads() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("Threads:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
