//! `union`: several streams as one.

use std::sync::Arc;

use crate::error::Result;
use crate::frame::Frame;
use crate::message::Watermark;
use crate::operator::{Context, Operator, OperatorFactory, Progress, operator_factory};

/// Passes everything on, whatever its row type. All edges of the union lead to its input 0, whose watermark
/// is the least over them. A partition number means something in one source only, so watermarks of
/// partitions end here.
pub fn union() -> Arc<dyn OperatorFactory> {
    operator_factory(|_| Ok(Union))
}

struct Union;

impl Operator for Union {
    fn process(&mut self, _input: usize, frame: Frame, context: &mut Context<'_>) -> Result<()> {
        context.emit(0, frame);
        Ok(())
    }

    fn advance(
        &mut self,
        _input: usize,
        watermark: Watermark,
        context: &mut Context<'_>,
    ) -> Result<Progress> {
        if watermark.partition.is_none() {
            context.forward_watermark(watermark);
        }
        Ok(Progress::Done)
    }
}
