//! Tensors without numbers, whose bytes are counted instead of taken.

use super::{Memory, Shape, Tensor, buffer::rounded};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What dry tensors would take of the pool, altogether and account by account. Copies share the books.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger(Arc<Mutex<Books>>);

#[derive(Debug, Default)]
struct Books {
    live: usize,
    peak: usize,
    /// Bytes live of each account.
    accounts: Vec<usize>,
}

impl Ledger {
    /// An account of its own, for [`Tensor::dry`].
    pub(crate) fn open_account(&self) -> usize {
        let mut books = self.books();
        books.accounts.push(0);
        books.accounts.len() - 1
    }

    /// Bytes live of an account.
    pub(crate) fn balance(&self, account: usize) -> usize {
        self.books().accounts.get(account).copied().unwrap_or(0)
    }

    /// Bytes live of all accounts.
    pub(crate) fn live(&self) -> usize {
        self.books().live
    }

    /// The most that was live.
    pub(crate) fn peak(&self) -> usize {
        self.books().peak
    }

    /// The books are whole whenever the lock is free.
    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes on an account for as long as it exists.
#[derive(Debug)]
pub(super) struct Entry {
    ledger: Ledger,
    account: usize,
    bytes: usize,
}

impl Entry {
    fn new(ledger: &Ledger, account: usize, bytes: usize) -> Entry {
        let mut books = ledger.books();
        books.live += bytes;
        books.peak = books.peak.max(books.live);
        if let Some(balance) = books.accounts.get_mut(account) {
            *balance += bytes;
        }
        drop(books);
        Entry { ledger: ledger.clone(), account, bytes }
    }

    /// Another of as many bytes on the same account.
    pub(super) fn again(&self) -> Entry {
        Entry::new(&self.ledger, self.account, self.bytes)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut books = self.ledger.books();
        books.live -= self.bytes;
        if let Some(balance) = books.accounts.get_mut(self.account) {
            *balance -= self.bytes;
        }
    }
}

impl Tensor {
    /// A tensor of this shape without numbers, whose bytes count on an account.
    pub(crate) fn dry(shape: Shape, ledger: &Ledger, account: usize) -> Tensor {
        let entry = Entry::new(ledger, account, rounded(shape.elements()));
        Tensor { shape, memory: Memory::Counted(Arc::new(entry)) }
    }

    /// Whether it has a shape and no numbers, as what is computed on a [dry tape](crate::autograd::Tape::dry) has:
    /// [`Tensor::data`] is empty then.
    pub fn is_dry(&self) -> bool {
        matches!(self.memory, Memory::Counted(_))
    }

    /// The account that it counts on.
    pub(crate) fn account(&self) -> Option<usize> {
        match &self.memory {
            Memory::Counted(entry) => Some(entry.account),
            Memory::Held(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_as_the_pool_counts_them() {
        let ledger = Ledger::default();
        let (a, b) = (ledger.open_account(), ledger.open_account());
        let shape = Shape::new(&[100, 1000]).unwrap();
        let x = Tensor::dry(shape, &ledger, a);
        assert_eq!((x.data().len(), x.shape(), x.is_dry(), x.account()), (0, &shape, true, Some(a)));
        assert_eq!(ledger.live(), 401_408, "whole pages");
        let y = Tensor::dry(Shape::scalar(), &ledger, b);
        assert_eq!((ledger.balance(a), ledger.balance(b), ledger.live()), (401_408, 64, 401_472));

        let mut shared = x.reshape([1000, 100]).unwrap();
        assert_eq!(ledger.live(), 401_472);
        assert!(!x.is_unique());
        assert!(shared.data_mut().is_empty());
        assert_eq!(ledger.balance(a), 2 * 401_408, "writing to shared memory copies it");
        drop((x, y));
        assert!(shared.is_unique());
        shared.data_mut();
        assert_eq!((ledger.live(), ledger.peak()), (401_408, 2 * 401_408 + 64));
        drop(shared);
        assert_eq!(ledger.live(), 0);
    }

    #[test]
    fn a_dry_tensor_can_be_shown() {
        let ledger = Ledger::default();
        let x = Tensor::dry(Shape::new(&[2, 3]).unwrap(), &ledger, ledger.open_account());
        assert_eq!(format!("{x:?}"), "Tensor [2, 3] []");
        assert!(x.item().is_nan() && x.argmax().is_empty() && x.rows(0..1).is_err());
    }
}
