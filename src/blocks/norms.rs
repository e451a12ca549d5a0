//! The batch normalizations of blocks, whose settings can be changed.

use super::{
    BasicBlock, Bottleneck, ConvNorm, DenseBlock, DenseLayer, NormConv, PreActBlock, ResBlock, ResidualUnit,
    Shortcut, Stem, StemLayer, StemLayers, Transition,
};
use crate::nn::BatchNorm2d;

/// A block with batch normalizations.
pub(crate) trait Norms {
    /// Appends the batch normalizations, in the order of the state.
    fn norms_mut<'a>(&'a mut self, norms: &mut Vec<&'a mut BatchNorm2d>);
}

impl<N: Norms> Norms for Vec<N> {
    fn norms_mut<'a>(&'a mut self, norms: &mut Vec<&'a mut BatchNorm2d>) {
        self.iter_mut().for_each(|part| part.norms_mut(norms));
    }
}

impl<N: Norms> Norms for Option<N> {
    fn norms_mut<'a>(&'a mut self, norms: &mut Vec<&'a mut BatchNorm2d>) {
        self.iter_mut().for_each(|part| part.norms_mut(norms));
    }
}

impl Norms for BatchNorm2d {
    fn norms_mut<'a>(&'a mut self, norms: &mut Vec<&'a mut BatchNorm2d>) {
        norms.push(self);
    }
}

/// The parts of a struct that have norms.
macro_rules! norms {
    ($($name:ty: $($part:ident),+;)+) => {$(
        impl Norms for $name {
            fn norms_mut<'a>(&'a mut self, norms: &mut Vec<&'a mut BatchNorm2d>) {
                $(self.$part.norms_mut(norms);)+
            }
        }
    )+};
}

norms! {
    ConvNorm: norm;
    NormConv: norm;
    BasicBlock: conv1, conv2, downsample;
    Bottleneck: conv1, conv2, conv3, downsample;
    PreActBlock: layers;
    ResBlock: blocks;
    Stem: layers;
    DenseLayer: first, second;
    DenseBlock: layers;
    Transition: conv;
}

impl Norms for ResidualUnit {
    fn norms_mut<'a>(&'a mut self, norms: &mut Vec<&'a mut BatchNorm2d>) {
        match self {
            ResidualUnit::Basic(block) => block.norms_mut(norms),
            ResidualUnit::Bottleneck(block) => block.norms_mut(norms),
            ResidualUnit::PreAct(block) => block.norms_mut(norms),
            ResidualUnit::Custom(_) => {}
        }
    }
}

impl Norms for Shortcut {
    fn norms_mut<'a>(&'a mut self, norms: &mut Vec<&'a mut BatchNorm2d>) {
        match self {
            Shortcut::Projection { conv } | Shortcut::PoolProjection { conv, .. } => conv.norms_mut(norms),
            Shortcut::Identity | Shortcut::Pad { .. } | Shortcut::None => {}
        }
    }
}

impl Norms for StemLayers {
    fn norms_mut<'a>(&'a mut self, norms: &mut Vec<&'a mut BatchNorm2d>) {
        match self {
            StemLayers::Single(layer) => layer.norms_mut(norms),
            StemLayers::Deep { conv1, conv2, conv3 } => {
                conv1.norms_mut(norms);
                conv2.norms_mut(norms);
                conv3.norms_mut(norms);
            }
        }
    }
}

impl Norms for StemLayer {
    fn norms_mut<'a>(&'a mut self, norms: &mut Vec<&'a mut BatchNorm2d>) {
        match self {
            StemLayer::Conv { .. } => {}
            StemLayer::ConvNorm(layer) => layer.norms_mut(norms),
        }
    }
}
