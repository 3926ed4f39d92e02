//! [`WithDeadLetters`]: a sink that has no place for dead letters, and a directory that has. The dead letters of
//! a batch are stored before its output, so a run that is begun again may store some twice, but loses none.

use std::sync::Arc;

use crate::batch::{Batch, Body, Receipt};
use crate::codec::{Codec, Framer};
use crate::error::Result;
use crate::sink::dir::{Fsync, Letters, Place};
use crate::sink::key::Namer;
use crate::sink::{DeadLetters, Framing, Shape, Sink};
use std::path::Path;

/// Stores dead letters under `failed/` of a directory, and everything else in `main`.
pub struct WithDeadLetters<S> {
    main: S,
    letters: Letters,
    codec: Codec,
}

impl<S: Sink> WithDeadLetters<S> {
    /// Makes the directory `root` where it is missing and checks that it can be written.
    ///
    /// # Errors
    /// If nothing can be stored there.
    pub fn prepare(main: S, root: &Path, namer: Namer, fsync: Fsync) -> Result<Self> {
        let codec = namer.codec();
        let place: Arc<Place> = Place::prepare(root, fsync)?;
        Ok(WithDeadLetters { main, letters: Letters::new(place, namer), codec })
    }

    /// The dead letters of a batch as one container. Where the main sink frames, the engine does not.
    fn framed(&self, body: &Body) -> Body {
        if self.main.shape().framing == Framing::Batch || body.is_empty() {
            return body.clone();
        }
        let (mut framer, mut framed) = (Framer::new(self.codec), Body::default());
        body.pieces().iter().for_each(|piece| framer.push(piece.clone(), &mut framed));
        framer.finish(&mut framed);
        framed
    }
}

impl<S: Sink> Sink for WithDeadLetters<S> {
    fn shape(&self) -> Shape {
        Shape { part: None, dead_letters: DeadLetters::Store, letter_records: false, ..self.main.shape() }
    }

    fn store(&self, batches: &[Batch], receipts: &mut Vec<Receipt>) -> Result<()> {
        for batch in batches {
            let failed_key = self.letters.store(&batch.id, &self.framed(&batch.failed))?;
            let before = receipts.len();
            let outcome = self.main.store(std::slice::from_ref(batch), receipts);
            receipts[before..].iter_mut().for_each(|receipt| receipt.failed_key = failed_key.clone());
            outcome?;
        }
        Ok(())
    }

    fn finish(&self) -> Result<()> {
        self.main.finish()
    }
}
