//! Networks compiled for inference.
//!
//! [`InferenceModel::compile`] traces a module, folds batch normalizations into the convolutions
//! before them, adds bias, shortcut and ReLU while a result is in the cache, writes the parts of a
//! concatenation where the whole will be, packs weights once, and plans one arena for all values.
//! Any module can be compiled, also with operations of your own, which run as they are.
//!
//! A compiled network is a snapshot: training the module later changes nothing in it. Threads can
//! share it. [`Tape::eval`](crate::autograd::Tape::eval) remains the plain definition, with which
//! [`InferenceModel::verify`] compares it.
//!
//! ```
//! use skipgrad::{Rng, Tensor, models::ResNet};
//! use skipgrad::inference::{InferenceModel, InferenceOptions};
//! let model = ResNet::cifar_paper(20, 10, &mut Rng::seed(0))?;
//! let options = InferenceOptions::new([32, 32, 3]).batch_size(4);
//! let compiled = InferenceModel::compile(&model, &options)?;
//! let images = Tensor::uniform([4, 32, 32, 3], 0.0, 1.0, &mut Rng::seed(1))?;
//! assert_eq!(compiled.run(&images)?.shape(), [4, 10]);
//! compiled.verify(&model, &images, 1e-5)?;
//! # Ok::<(), skipgrad::Error>(())
//! ```

mod fuse;
mod place;
mod program;
mod weights;

use crate::{
    Error, Precision, Result, Shape, Tensor,
    autograd::{StateId, Tape, Version},
    graph::Graph,
    install,
    nn::Module,
};
use fuse::{Fused, Stage};
use program::{Arena, Program};
use std::{
    collections::BTreeMap,
    fmt,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use weights::Weights;

/// The most sizes of inputs whose plans are kept.
const MAX_PROGRAMS: usize = 16;

/// What a network is compiled for; see [`InferenceModel::compile`].
#[derive(Clone, Debug)]
pub struct InferenceOptions {
    image: Vec<usize>,
    batch_size: usize,
    precision: Precision,
}

impl InferenceOptions {
    /// Compiles for single images of a shape, `[H, W, C]`.
    pub fn new(image: impl AsRef<[usize]>) -> InferenceOptions {
        InferenceOptions { image: image.as_ref().to_vec(), batch_size: 1, precision: Precision::F32 }
    }

    /// Sets the number of images that usually run together; 1 by default. Algorithms are chosen for
    /// it, and it sets the size of the arena. Other numbers of images run, too.
    #[must_use]
    pub fn batch_size(self, batch_size: usize) -> InferenceOptions {
        InferenceOptions { batch_size, ..self }
    }

    /// Sets the type in which convolutions and linear layers multiply; [`Precision::F32`] by
    /// default. In bf16, the weights of a convolution take half the memory of those in f32, if its
    /// channels are multiples of 32; others are padded.
    ///
    /// ```
    /// use skipgrad::{Precision, Rng, Tensor, models::ResNet};
    /// use skipgrad::inference::{InferenceModel, InferenceOptions};
    /// let model = ResNet::cifar_paper(20, 10, &mut Rng::seed(0))?;
    /// let options = InferenceOptions::new([32, 32, 3]).precision(Precision::Bf16);
    /// let compiled = InferenceModel::compile(&model, &options)?;
    /// let images = Tensor::uniform([1, 32, 32, 3], 0.0, 1.0, &mut Rng::seed(1))?;
    /// compiled.verify(&model, &images, 0.03)?;
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    #[must_use]
    pub fn precision(self, precision: Precision) -> InferenceOptions {
        InferenceOptions { precision, ..self }
    }

    fn shape(&self) -> Vec<usize> {
        [&[self.batch_size], &self.image[..]].concat()
    }
}

/// A network compiled for inference; see [the module](self).
pub struct InferenceModel {
    /// The operations, without the weights that were packed.
    graph: Graph,
    stages: Vec<Stage>,
    weights: Vec<Weights>,
    /// The plans for the sizes of inputs so far, the latest last.
    programs: Mutex<Vec<Arc<Program>>>,
    /// The arenas that no run uses now.
    arenas: Mutex<Vec<Arena>>,
    /// The versions of the module's parameters and buffers.
    versions: BTreeMap<StateId, Version>,
    /// Whether the same operations compute other numbers of images, and images of other sizes.
    fits_other_batches: bool,
    fits_other_images: bool,
}

/// The memory of an [`InferenceModel`], in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InferenceMemory {
    /// Weights, most of them packed.
    pub weights: usize,
    /// One arena for the size of inputs that takes most. Each run at the same time has its own.
    pub arena: usize,
}

impl InferenceModel {
    /// Compiles a module.
    ///
    /// Inputs of another size than that of `options` are planned when they first come. A module
    /// whose operations depend on the size of its input in another way than through the shapes of
    /// values is compiled for the size of `options` alone.
    ///
    /// # Errors
    /// As [`Module::forward`] if such images do not fit; [`Error::OutOfMemory`].
    pub fn compile<M: Module + ?Sized>(module: &M, options: &InferenceOptions) -> Result<InferenceModel> {
        let shape = options.shape();
        let mut graph = Graph::trace(module, &shape)?;
        // Mostly one more trace says both.
        let fits_all = is_traced_again(module, &graph, 0..3) == Some(true);
        let fits_other_batches = fits_all || is_traced_again(module, &graph, 0..1) != Some(false);
        let fits_other_images = fits_all || is_traced_again(module, &graph, 1..3) != Some(false);
        let Fused { stages, weights } = fuse::fuse(&graph, options.precision.is_bf16())?;
        graph.forget_constants();
        let mut versions = BTreeMap::new();
        module.visit("", &mut |_, state| {
            versions.insert(state.id(), state.version());
        });
        let program = Arc::new(Program::new(graph.clone(), &stages, &weights)?);
        log::debug!("compiled {} operations to {} stages", graph.nodes().len(), stages.len());
        let (programs, arenas) = (Mutex::new(vec![program]), Mutex::default());
        Ok(InferenceModel {
            graph,
            stages,
            weights,
            programs,
            arenas,
            versions,
            fits_other_batches,
            fits_other_images,
        })
    }

    /// Returns the output for an input, `[N, K]` for the images `[N, H, W, C]` of a classifier.
    ///
    /// # Errors
    /// The error of the operation that an input of this size does not fit, with the path of its
    /// module; [`Error::OutOfMemory`].
    pub fn run(&self, input: &Tensor) -> Result<Tensor> {
        let program = self.program(input.shape())?;
        let mut arena = lock(&self.arenas).pop().unwrap_or_default();
        let output = install(|| program.run(&self.stages, &self.weights, input, &mut arena));
        lock(&self.arenas).push(arena);
        output
    }

    /// Returns whether the module does the same with an input of a shape as with that which it was
    /// compiled for. Whether such an input fits its operations is not checked.
    pub fn fits(&self, shape: &Shape) -> bool {
        let compiled = self.graph.input();
        let differs = |axis: usize| compiled.get(axis) != shape.get(axis);
        let is_other_image = (1..compiled.rank().max(shape.rank())).any(differs);
        (!differs(0) || self.fits_other_batches) && (!is_other_image || self.fits_other_images)
    }

    /// Compares the output with what the module computes by its definition, on a tape.
    ///
    /// # Errors
    /// [`Error::Argument`] if an element differs by more than `tolerance` times the largest; the
    /// errors of [`InferenceModel::run`] and of the module.
    pub fn verify<M: Module + ?Sized>(&self, module: &M, input: &Tensor, tolerance: f32) -> Result<()> {
        let found = self.run(input)?;
        let expected =
            install(|| Tape::eval().input(input.clone()).apply(module).map(|y| y.value().clone()))?;
        if found.shape() != expected.shape() {
            return Err(Error::shape("inference", "output", expected.shape(), found.shape()));
        }
        let largest = expected.data().iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        let differences = found.data().iter().zip(expected.data()).map(|(a, b)| (a - b).abs());
        // A NaN in one of the two is no agreement.
        let worst = differences.fold(0.0f32, |worst, d| if d <= worst { worst } else { d });
        if worst <= tolerance * largest {
            return Ok(());
        }
        let expected = format!("the module's within {tolerance:e} of its largest element, {largest}");
        Err(Error::argument("inference", "output", expected, format_args!("a difference of {worst}")))
    }

    /// Returns whether a parameter or a buffer of the module was changed since the network was
    /// compiled.
    pub fn is_stale<M: Module + ?Sized>(&self, module: &M) -> bool {
        let mut is_stale = false;
        module.visit("", &mut |_, state| {
            is_stale |= self.versions.get(&state.id()) != Some(&state.version());
        });
        is_stale
    }

    /// Returns the memory that it takes.
    pub fn memory(&self) -> InferenceMemory {
        let constants = self.stages.iter().flat_map(Stage::constants).map(Tensor::bytes);
        let weights = self.weights.iter().map(Weights::bytes).chain(constants).sum();
        let arenas = lock(&self.arenas);
        let planned = |program: &Arc<Program>| {
            program.slots().iter().map(|len| skipgrad_kernels::memory::rounded(*len)).sum::<usize>()
        };
        let planned = lock(&self.programs).iter().map(planned).max().unwrap_or(0);
        InferenceMemory { weights, arena: arenas.iter().map(Arena::bytes).max().unwrap_or(0).max(planned) }
    }

    /// Returns the plan for inputs of a shape.
    fn program(&self, shape: &Shape) -> Result<Arc<Program>> {
        let mut programs = lock(&self.programs);
        if let Some(known) = programs.iter().position(|program| program.input() == shape) {
            let program = programs.remove(known);
            programs.push(program.clone());
            return Ok(program);
        }
        if !self.fits(shape) {
            let compiled = self.graph.input();
            let expected = format!("{compiled}, since what the module computes depends on the size");
            return Err(Error::argument("inference", "input", expected, shape));
        }
        let graph = self.graph.resized(*shape)?;
        let program = Arc::new(Program::new(graph, &self.stages, &self.weights)?);
        log::debug!("planned a compiled network for inputs {shape}");
        if programs.len() == MAX_PROGRAMS {
            programs.remove(0);
        }
        programs.push(program.clone());
        Ok(program)
    }
}

/// How much larger the images are with which a module is traced again.
const MORE_PIXELS: usize = 32;

/// Returns whether a module does the same with an input that is larger along some axes as its graph
/// does, or `None` if it does not take such an input, which the graph will say, too.
fn is_traced_again<M: Module + ?Sized>(module: &M, graph: &Graph, axes: Range<usize>) -> Option<bool> {
    let mut shape = graph.input().to_vec();
    for (axis, size) in shape.iter_mut().enumerate().filter(|(axis, _)| axes.contains(axis)) {
        *size += if axis == 0 { 1 } else { MORE_PIXELS };
    }
    let traced = Graph::trace(module, &shape).ok()?;
    Some(graph.resized(Shape::new(&shape).ok()?).is_ok_and(|resized| resized.is_like(&traced)))
}

/// Locks a list. A thread that panicked leaves it whole.
fn lock<T>(list: &Mutex<T>) -> MutexGuard<'_, T> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for InferenceModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let InferenceMemory { weights, arena } = self.memory();
        f.debug_struct("InferenceModel")
            .field("input", self.graph.input())
            .field("stages", &self.stages.len())
            .field("weights", &weights)
            .field("arena", &arena)
            .finish()
    }
}
