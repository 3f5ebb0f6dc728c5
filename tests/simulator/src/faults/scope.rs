//! Whom a fault meets: all, an account's devices, or one device. The narrowest that is set counts.

use std::collections::HashMap;
use std::sync::Arc;

use crate::account::DeviceKey;

/// Whom a fault meets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Everybody.
    #[default]
    All,
    /// The devices of the account with this number.
    Account(Arc<str>),
    /// One device: its connection.
    Device(DeviceKey),
}

impl Scope {
    /// Whether it holds a device.
    pub(super) fn has(&self, device: &DeviceKey) -> bool {
        match self {
            Self::All => true,
            Self::Account(number) => *number == device.number,
            Self::Device(key) => key == device,
        }
    }
}

/// A setting by scope.
pub(super) struct Scoped<T> {
    all: Option<T>,
    accounts: HashMap<Arc<str>, T>,
    devices: HashMap<DeviceKey, T>,
}

impl<T> Default for Scoped<T> {
    fn default() -> Self {
        Self { all: None, accounts: HashMap::new(), devices: HashMap::new() }
    }
}

impl<T> Scoped<T> {
    /// Sets it for a scope, or takes it away. For all, it is taken away from every narrower scope as well.
    pub(super) fn set(&mut self, scope: &Scope, value: Option<T>) {
        match (scope, value) {
            (Scope::All, None) => *self = Self::default(),
            (Scope::All, value) => self.all = value,
            (Scope::Account(number), Some(value)) => drop(self.accounts.insert(number.clone(), value)),
            (Scope::Account(number), None) => {
                self.accounts.remove(number);
                self.devices.retain(|device, _| device.number != *number);
            }
            (Scope::Device(device), Some(value)) => drop(self.devices.insert(device.clone(), value)),
            (Scope::Device(device), None) => drop(self.devices.remove(device)),
        }
    }

    /// What holds for a device; without one, what holds for all.
    pub(super) fn get_mut(&mut self, device: Option<&DeviceKey>) -> Option<&mut T> {
        let Some(device) = device else {
            return self.all.as_mut();
        };
        if let Some(value) = self.devices.get_mut(device) {
            return Some(value);
        }
        self.accounts.get_mut(&device.number).or(self.all.as_mut())
    }

    /// The same, copied.
    pub(super) fn get(&mut self, device: &DeviceKey) -> Option<T>
    where
        T: Copy,
    {
        self.get_mut(Some(device)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_counts() {
        let device = |number: &str, device| DeviceKey { number: number.into(), device };
        let (one, two, other) = (device("1", 1), device("1", 2), device("2", 1));
        let mut scoped = Scoped::default();
        scoped.set(&Scope::All, Some('a'));
        scoped.set(&Scope::Account("1".into()), Some('b'));
        scoped.set(&Scope::Device(two.clone()), Some('c'));
        let all = |scoped: &mut Scoped<char>| [&one, &two, &other].map(|d| scoped.get(d));
        assert_eq!(all(&mut scoped), [Some('b'), Some('c'), Some('a')]);
        assert_eq!(scoped.get_mut(None), Some(&mut 'a'), "before a login");
        scoped.set(&Scope::Account("1".into()), None);
        assert_eq!(all(&mut scoped), [Some('a'); 3], "its devices are in the account");
        scoped.set(&Scope::Device(one.clone()), Some('d'));
        scoped.set(&Scope::All, None);
        assert_eq!(all(&mut scoped), [None; 3]);
        assert!(Scope::All.has(&one) && Scope::Account("1".into()).has(&two) && Scope::Device(one.clone()).has(&one));
        assert!(!Scope::Account("1".into()).has(&other) && !Scope::Device(one).has(&two));
    }
}
