//! The embedded store: one redb file; every record authenticated, private keys sealed (A26).

use std::path::Path;

use super::StoreError;

/// The store of one machine. Also a `KeyHolder` for the private keys in it.
pub struct EmbeddedStore {}

impl EmbeddedStore {
    /// Creates the folder and a store whose keys are wrapped by the KEK in `kek_file`; an existing store is an error.
    pub fn create(_folder: &Path, _kek_file: &Path) -> Result<Self, StoreError> {
        todo!()
    }
    /// Opens a store; a KEK that is not its own is an error that says so.
    pub fn open(_folder: &Path, _kek_file: &Path) -> Result<Self, StoreError> {
        todo!()
    }
}
