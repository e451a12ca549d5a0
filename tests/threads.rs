//! Whose threads compute. One test in a process of its own: the threads are the whole process's.

use skipgrad::{
    Result, Rng, Tensor,
    autograd::{State, Tape},
    models::{ResNet, ResNetConfig},
    nn::Module,
    optim::{Optimizer, Sgd},
};
use std::{
    sync::{
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

/// Threads of a user who trains or runs one model on each.
const USERS: usize = 4;
/// Threads of a pool: not a divisor of anything here, nor likely to be the machine's own number.
const POOL: usize = 3;

#[test]
fn threads_are_the_callers() -> Result<()> {
    let alone = a_pool_that_work_is_installed_in_does_all_of_it()?;
    models_on_threads_of_their_own_share_the_pool(&alone)?;
    one_model_serves_many_threads()
}

/// Large enough that every kernel cuts its work into several tasks, in all directions and by Winograd's algorithm too.
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

/// Returns what every user's work gives if nobody else is at work.
fn a_pool_that_work_is_installed_in_does_all_of_it() -> Result<Vec<Vec<Tensor>>> {
    let (alone, most) = watched(|| -> Result<Vec<Vec<Tensor>>> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(POOL).build().unwrap();
        (0..USERS).map(|seed| pool.install(|| work(seed))).collect()
    });
    assert_at_most(most, POOL);
    // The global pool is made when it is first asked for anything, and cannot be made twice.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(POOL).start_handler(|_| {
        STARTED.fetch_add(1, Relaxed);
    });
    pool.build_global().expect("no work has reached the global pool");
    alone
}

/// Threads that the global pool has started.
static STARTED: AtomicUsize = AtomicUsize::new(0);

fn models_on_threads_of_their_own_share_the_pool(alone: &[Vec<Tensor>]) -> Result<()> {
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

/// Runs `f` and watches how many threads the process has meanwhile, beyond those that it had before: the most that were seen.
/// `None` where the system does not say.
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
