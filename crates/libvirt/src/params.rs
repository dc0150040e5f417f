//! libvirt's typed parameters, read and written without leaks.

use std::{
    collections::BTreeMap,
    ffi::{CStr, CString, c_int},
    ptr,
};

use virt::{error::Error, sys};

/// A value that libvirt gave under a name.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// Any of libvirt's integer types that is not negative.
    Number(u64),
    /// A negative integer.
    Negative(i64),
    /// A floating-point number.
    Float(f64),
    /// A boolean.
    Flag(bool),
    /// A text.
    Text(String),
}

/// Values by name.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Values(BTreeMap<String, Value>);

impl Values {
    /// The number of that name.
    pub(super) fn number(&self, name: &CStr) -> Option<u64> {
        match self.0.get(name.to_str().ok()?)? {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The text of that name.
    pub(super) fn text(&self, name: &CStr) -> Option<&str> {
        match self.0.get(name.to_str().ok()?)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Copies `count` parameters out of libvirt's memory, which stays the caller's to free.
    ///
    /// # Safety
    /// `params` must be null or point to `count` initialised parameters.
    pub(super) unsafe fn copied(params: *const sys::virTypedParameter, count: c_int) -> Self {
        let count = usize::try_from(count).unwrap_or(0);
        if params.is_null() || count == 0 {
            return Self::default();
        }
        // SAFETY: the caller guarantees `count` initialised parameters at `params`.
        let params = unsafe { std::slice::from_raw_parts(params, count) };
        // SAFETY: as the caller guarantees for each of them.
        Self(params.iter().filter_map(|param| unsafe { named(param) }).collect())
    }
}

/// Name and value of one parameter; none for a type that vmgate does not know.
///
/// # Safety
/// `param` must be initialised by libvirt: its name ends with a NUL within the array, and its type says which
/// member of the union holds.
unsafe fn named(param: &sys::virTypedParameter) -> Option<(String, Value)> {
    // SAFETY: libvirt ends the name with a NUL within its 80 bytes.
    let name = unsafe { CStr::from_ptr(param.field.as_ptr()) }.to_string_lossy().into_owned();
    let whole = |number: i64| u64::try_from(number).map_or(Value::Negative(number), Value::Number);
    let value = match u32::try_from(param.type_).ok()? {
        // SAFETY: in each arm the type that libvirt wrote selects the member that libvirt wrote.
        sys::VIR_TYPED_PARAM_INT => whole(i64::from(unsafe { param.value.i })),
        // SAFETY: as above.
        sys::VIR_TYPED_PARAM_UINT => Value::Number(u64::from(unsafe { param.value.ui })),
        // SAFETY: as above.
        sys::VIR_TYPED_PARAM_LLONG => whole(unsafe { param.value.l }),
        // SAFETY: as above.
        sys::VIR_TYPED_PARAM_ULLONG => Value::Number(unsafe { param.value.ul }),
        // SAFETY: as above.
        sys::VIR_TYPED_PARAM_DOUBLE => Value::Float(unsafe { param.value.d }),
        // SAFETY: as above.
        sys::VIR_TYPED_PARAM_BOOLEAN => Value::Flag(unsafe { param.value.b } != 0),
        sys::VIR_TYPED_PARAM_STRING => {
            // SAFETY: as above.
            let text = unsafe { param.value.s };
            if text.is_null() {
                return None;
            }
            // SAFETY: a text parameter points to a NUL-terminated string that lives as long as the parameter.
            Value::Text(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
        }
        _ => return None,
    };
    Some((name, value))
}

/// A list of parameters for libvirt, in libvirt's memory.
#[derive(Debug)]
pub struct ParamList {
    params: sys::virTypedParameterPtr,
    count: c_int,
    capacity: c_int,
}

/// Adds a parameter with one of libvirt's functions, each for one type of value.
macro_rules! add {
    ($list:ident, $function:ident, $name:ident, $value:expr) => {{
        let (params, count, capacity) = (&raw mut $list.params, &raw mut $list.count, &raw mut $list.capacity);
        // SAFETY: the three describe the list, which libvirt grows in place; name and text end with a NUL and are copied.
        checked(unsafe { sys::$function(params, count, capacity, $name.as_ptr(), $value) })
    }};
}

impl ParamList {
    /// An empty list.
    #[allow(clippy::new_without_default, reason = "a list is made to be filled")]
    pub fn new() -> Self {
        Self { params: ptr::null_mut(), count: 0, capacity: 0 }
    }

    /// Adds a text.
    pub fn text(&mut self, name: &CStr, value: &str) -> Result<(), Error> {
        let value = CString::new(value)?;
        add!(self, virTypedParamsAddString, name, value.as_ptr())
    }

    /// Adds an unsigned 64-bit number.
    pub fn number(&mut self, name: &CStr, value: u64) -> Result<(), Error> {
        add!(self, virTypedParamsAddULLong, name, value)
    }

    /// Adds a signed 32-bit number.
    pub fn int(&mut self, name: &CStr, value: c_int) -> Result<(), Error> {
        add!(self, virTypedParamsAddInt, name, value)
    }

    /// The list as libvirt's calls take it: pointer and length, valid while `self` is.
    pub fn as_parts(&mut self) -> (sys::virTypedParameterPtr, u32) {
        (self.params, u32::try_from(self.count).unwrap_or(0))
    }
}

impl Drop for ParamList {
    fn drop(&mut self) {
        // SAFETY: list and count are libvirt's own, made by virTypedParamsAdd*; null is allowed.
        unsafe { sys::virTypedParamsFree(self.params, self.count) };
    }
}

/// libvirt's last error where a call answered with less than zero.
pub fn checked(result: c_int) -> Result<(), Error> {
    if result < 0 { Err(Error::last_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut list = ParamList::new();
        list.text(c"uri", "tcp:10.77.1.2").unwrap();
        list.number(c"bandwidth", 100).unwrap();
        assert!(list.text(c"uri", "a\0b").is_err());
        let (params, count) = list.as_parts();
        // SAFETY: the list just made holds `count` parameters.
        let values = unsafe { Values::copied(params, c_int::try_from(count).unwrap()) };
        assert_eq!(values.text(c"uri"), Some("tcp:10.77.1.2"));
        assert_eq!(values.number(c"bandwidth"), Some(100));
        assert_eq!(values.number(c"uri"), None);
    }
}
