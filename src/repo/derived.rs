//! What others make of something immutable, kept with it.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

/// What a user of something immutable made of it, once. It says nothing about the thing: all are equal.
#[derive(Clone, Default)]
pub struct Derived(OnceLock<Arc<dyn Any + Send + Sync>>);

impl Derived {
    /// What the first caller made. A caller that wants another type makes its own each time.
    pub fn get_or_make<T: Any + Send + Sync>(&self, make: impl Fn() -> T) -> Arc<T> {
        let kept = self.0.get_or_init(|| Arc::new(make()));
        Arc::clone(kept).downcast().unwrap_or_else(|_| Arc::new(make()))
    }
}

impl PartialEq for Derived {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Derived {}

impl fmt::Debug for Derived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Derived")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_kept_and_shared() {
        let derived = Derived::default();
        let first = derived.get_or_make(|| 1_u32);
        assert!(Arc::ptr_eq(&first, &derived.get_or_make(|| 2_u32)) && *first == 1);
        assert_eq!(*derived.get_or_make(|| "another type"), "another type");
    }
}
