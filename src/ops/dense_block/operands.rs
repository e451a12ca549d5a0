//! The operands of a layer by name.

/// One value for each operand of a layer, such as its gradient. A layer without a bottleneck has
/// the operands `gamma1`, `beta1` and `weight` only.
#[derive(Clone, Copy, Default)]
pub(super) struct Operands<T> {
    pub(super) gamma1: T,
    pub(super) beta1: T,
    /// The weight of the 1x1 convolution.
    pub(super) bottleneck_weight: T,
    pub(super) gamma2: T,
    pub(super) beta2: T,
    /// The weight of the 3x3 convolution.
    pub(super) weight: T,
}

impl<T: Default> Operands<T> {
    /// Takes the values of a layer from those of all layers, in the order of the operation's
    /// inputs.
    pub(super) fn take(has_bottleneck: bool, values: &mut impl Iterator<Item = T>) -> Operands<T> {
        let mut next = |exists: bool| if exists { values.next().unwrap_or_default() } else { T::default() };
        Operands {
            gamma1: next(true),
            beta1: next(true),
            bottleneck_weight: next(has_bottleneck),
            gamma2: next(has_bottleneck),
            beta2: next(has_bottleneck),
            weight: next(true),
        }
    }

    /// Returns the values in the order of the operation's inputs.
    pub(super) fn into_inputs(self, has_bottleneck: bool) -> impl Iterator<Item = T> {
        let bottleneck = [self.bottleneck_weight, self.gamma2, self.beta2];
        let bottleneck = bottleneck.into_iter().filter(move |_| has_bottleneck);
        [self.gamma1, self.beta1].into_iter().chain(bottleneck).chain([self.weight])
    }
}

impl Operands<bool> {
    /// Returns whether one of the operands before the 3x3 convolution is set.
    pub(super) fn any_before_weight(self) -> bool {
        self.any_of_product() || self.gamma2 || self.beta2
    }

    /// Returns whether one of the operands before the second normalization is set.
    pub(super) fn any_of_product(self) -> bool {
        self.gamma1 || self.beta1 || self.bottleneck_weight
    }
}
