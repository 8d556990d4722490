//! Several reporters in the place of one.

use infra_core::event::{Event, Reporter};

/// Gives each event to all of these, in their order.
pub fn several(reporters: Vec<Box<dyn Reporter>>) -> Box<dyn Reporter> {
    Box::new(Several(reporters))
}

struct Several(Vec<Box<dyn Reporter>>);

impl Reporter for Several {
    fn event(&mut self, event: &Event) {
        self.0.iter_mut().for_each(|reporter| reporter.event(event));
    }

    fn idle(&mut self) {
        self.0.iter_mut().for_each(|reporter| reporter.idle());
    }
}
