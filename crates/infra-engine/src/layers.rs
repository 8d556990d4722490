//! What the operations of one host's script do to the facts, kept apart by where they run.

use std::collections::BTreeMap;

use infra_core::late::Place;

use crate::overlay::Layer;

/// The layers of a script's operations, in their order; none as a place is the host itself.
#[derive(Default)]
pub(crate) struct Layers {
    by_place: BTreeMap<Option<Place>, Vec<Layer>>,
    /// Those of operations that may run anything anywhere.
    everywhere: Vec<Layer>,
}

impl Layers {
    /// Adds that of an operation that runs at a place.
    pub(crate) fn push(&mut self, place: Option<Place>, layer: Layer) {
        self.by_place.entry(place).or_insert_with(|| self.everywhere.clone()).push(layer);
    }

    /// Adds that of an operation that may run anything anywhere.
    pub(crate) fn push_everywhere(&mut self, layer: Layer) {
        self.by_place.values_mut().for_each(|layers| layers.push(layer.clone()));
        self.everywhere.push(layer);
    }

    /// What an operation at a place sees of the ones before it.
    pub(crate) fn at(&self, place: Option<Place>) -> &[Layer] {
        self.by_place.get(&place).unwrap_or(&self.everywhere)
    }

    /// Keeps the layers of the first so many calls.
    pub(crate) fn truncate(&mut self, calls: usize) {
        for layers in self.by_place.values_mut().chain([&mut self.everywhere]) {
            layers.truncate(before(layers, calls).len());
        }
    }
}

/// The layers of the first so many calls.
pub(crate) fn before(layers: &[Layer], calls: usize) -> &[Layer] {
    &layers[..layers.partition_point(|layer| (layer.from.call as usize) < calls)]
}
