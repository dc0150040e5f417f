//! The single phases of libvirt's migration protocol (version 3), as a client calls them.

use std::{
    ffi::{CStr, c_char, c_int, c_uint, c_void},
    fmt, ptr,
};

use vmgate_libvirt::{
    WatchedMove,
    raw::{ParamList, RawError, checked, sys},
};

use super::{MigrateParams, migrate};

/// Arguments that differ between the phases of one migration.
#[derive(Clone, Copy)]
pub(super) struct Arguments<'a> {
    /// The VM, as the first phase described it.
    pub(super) xml: Option<&'a Text>,
    /// Address to send to.
    pub(super) uri: Option<&'a str>,
    /// The VM's name at the destination.
    pub(super) name: Option<&'a str>,
}

type Begin = unsafe extern "C" fn(
    sys::virDomainPtr,
    sys::virTypedParameterPtr,
    c_int,
    *mut *mut c_char,
    *mut c_int,
    c_uint,
) -> *mut c_char;
type Prepare = unsafe extern "C" fn(
    sys::virConnectPtr,
    sys::virTypedParameterPtr,
    c_int,
    *const c_char,
    c_int,
    *mut *mut c_char,
    *mut c_int,
    *mut *mut c_char,
    c_uint,
) -> c_int;
type Perform = unsafe extern "C" fn(
    sys::virDomainPtr,
    *const c_char,
    sys::virTypedParameterPtr,
    c_int,
    *const c_char,
    c_int,
    *mut *mut c_char,
    *mut c_int,
    c_uint,
) -> c_int;
type Finish = unsafe extern "C" fn(
    sys::virConnectPtr,
    sys::virTypedParameterPtr,
    c_int,
    *const c_char,
    c_int,
    *mut *mut c_char,
    *mut c_int,
    c_uint,
    c_int,
) -> sys::virDomainPtr;
type Confirm = unsafe extern "C" fn(
    sys::virDomainPtr,
    sys::virTypedParameterPtr,
    c_int,
    *const c_char,
    c_int,
    c_uint,
    c_int,
) -> c_int;

/// The phases of a migration, as libvirt's client calls them. They are in every libvirt.so since 1.1 (2013), for libvirt's own
/// daemons, but not in its headers; so they are looked for by name, and without them there is no trial.
struct Functions {
    begin: Begin,
    prepare: Prepare,
    perform: Perform,
    finish: Finish,
    confirm: Confirm,
}

impl Functions {
    fn load() -> Option<Self> {
        let find = |name: &CStr| {
            // SAFETY: the name ends with a NUL; the search has no side effects.
            let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
            (!found.is_null()).then_some(found)
        };
        let (begin, prepare) =
            (find(c"virDomainMigrateBegin3Params")?, find(c"virDomainMigratePrepare3Params")?);
        let (perform, finish) =
            (find(c"virDomainMigratePerform3Params")?, find(c"virDomainMigrateFinish3Params")?);
        let confirm = find(c"virDomainMigrateConfirm3Params")?;
        // SAFETY: libvirt's functions of these names have these signatures (libvirt_internal.h, unchanged since 1.1).
        unsafe {
            Some(Self {
                begin: std::mem::transmute::<*mut c_void, Begin>(begin),
                prepare: std::mem::transmute::<*mut c_void, Prepare>(prepare),
                perform: std::mem::transmute::<*mut c_void, Perform>(perform),
                finish: std::mem::transmute::<*mut c_void, Finish>(finish),
                confirm: std::mem::transmute::<*mut c_void, Confirm>(confirm),
            })
        }
    }
}

/// The phases of the migration of one VM, with its settings.
pub(super) struct Phases<'a> {
    functions: Functions,
    watched: &'a WatchedMove,
    params: &'a MigrateParams,
    flags: c_uint,
}

impl<'a> Phases<'a> {
    /// The only end of a trial that both hosts are ever told.
    const CANCELLED: c_int = 1;

    /// The phases; none where this libvirt client does not offer them one by one.
    pub(super) fn of(watched: &'a WatchedMove, params: &'a MigrateParams) -> Option<Self> {
        Some(Self { functions: Functions::load()?, watched, params, flags: migrate::flags(params) })
    }

    fn list(&self, arguments: &Arguments) -> Result<ParamList, RawError> {
        let params = MigrateParams { migrate_uri: arguments.uri.map(str::to_owned), ..self.params.clone() };
        let mut list = migrate::param_list(&params)?;
        if let Some(xml) = arguments.xml {
            list.text(sys::VIR_MIGRATE_PARAM_DEST_XML, &xml.to_string())?;
        }
        if let Some(name) = arguments.name {
            list.text(sys::VIR_MIGRATE_PARAM_DEST_NAME, name)?;
        }
        Ok(list)
    }

    /// The source checks the VM and describes it for the destination.
    pub(super) fn begin(&self, arguments: &Arguments) -> Result<(Text, Cookie), RawError> {
        let mut list = self.list(arguments)?;
        let (values, count) = parts(&mut list);
        let mut cookie = Cookie::none();
        // SAFETY: the domain is valid while it is borrowed, the list has `count` parameters, and the cookie is filled by libvirt.
        let xml = unsafe {
            (self.functions.begin)(
                self.watched.domain(),
                values,
                count,
                &raw mut cookie.start,
                &raw mut cookie.length,
                protected(self.flags),
            )
        };
        if xml.is_null() { Err(RawError::last_error()) } else { Ok((Text(xml), cookie)) }
    }

    /// The destination starts a QEMU that waits; returns the URI to send to, where the destination chose one.
    pub(super) fn prepare(
        &self,
        arguments: &Arguments,
        from_source: &Cookie,
    ) -> Result<(Option<Text>, Cookie), RawError> {
        let mut list = self.list(arguments)?;
        let (values, count) = parts(&mut list);
        let (mut cookie, mut uri) = (Cookie::none(), ptr::null_mut());
        // SAFETY: as for `begin`; the connection is valid while it is borrowed, and libvirt fills the URI.
        let result = unsafe {
            (self.functions.prepare)(
                self.watched.destination(),
                values,
                count,
                from_source.start,
                from_source.length,
                &raw mut cookie.start,
                &raw mut cookie.length,
                &raw mut uri,
                at_destination(self.flags),
            )
        };
        let uri = (!uri.is_null()).then(|| Text(uri));
        checked(result)?;
        Ok((uri, cookie))
    }

    /// The source sends, until the job is aborted or all is sent. Blocks as long.
    pub(super) fn perform(
        &self,
        arguments: &Arguments,
        from_destination: &Cookie,
    ) -> (Result<(), RawError>, Cookie) {
        let mut list = match self.list(arguments) {
            Ok(list) => list,
            Err(error) => return (Err(error), Cookie::none()),
        };
        let (values, count) = parts(&mut list);
        let mut cookie = Cookie::none();
        // SAFETY: as for `begin`; without a URI of the destination's libvirt this client manages the migration.
        let result = unsafe {
            (self.functions.perform)(
                self.watched.domain(),
                ptr::null(),
                values,
                count,
                from_destination.start,
                from_destination.length,
                &raw mut cookie.start,
                &raw mut cookie.length,
                protected(self.flags),
            )
        };
        (checked(result), cookie)
    }

    /// Ends the destination's QEMU. Returns the destination's words on it.
    pub(super) fn cancel_at_destination(
        &self,
        arguments: &Arguments,
        from_source: &Cookie,
    ) -> (Option<RawError>, Cookie) {
        let mut list = match self.list(arguments) {
            Ok(list) => list,
            // The destination ends its QEMU with the connection.
            Err(error) => return (Some(error), Cookie::none()),
        };
        let (values, count) = parts(&mut list);
        let mut cookie = Cookie::none();
        // SAFETY: as for `prepare`.
        let domain = unsafe {
            (self.functions.finish)(
                self.watched.destination(),
                values,
                count,
                from_source.start,
                from_source.length,
                &raw mut cookie.start,
                &raw mut cookie.length,
                at_destination(self.flags),
                Self::CANCELLED,
            )
        };
        if domain.is_null() {
            return (Some(RawError::last_error()), cookie);
        }
        // SAFETY: libvirt returned a new reference, which nothing else has.
        unsafe { sys::virDomainFree(domain) };
        (None, cookie)
    }

    /// Lets the guest go on at the source, where the job ends.
    pub(super) fn cancel_at_source(&self, from_destination: &Cookie) {
        let arguments = Arguments { xml: None, uri: self.params.migrate_uri.as_deref(), name: None };
        let Ok(mut list) = self.list(&arguments) else { return };
        let (values, count) = parts(&mut list);
        // SAFETY: as for `begin`.
        let result = unsafe {
            (self.functions.confirm)(
                self.watched.domain(),
                values,
                count,
                from_destination.start,
                from_destination.length,
                protected(self.flags),
                Self::CANCELLED,
            )
        };
        if result < 0 {
            tracing::warn!("the source did not end the trial's job: {}", words(&RawError::last_error()));
        }
    }
}

fn parts(list: &mut ParamList) -> (sys::virTypedParameterPtr, c_int) {
    let (values, count) = list.as_parts();
    (values, c_int::try_from(count).unwrap_or(0))
}

/// Flags of the source's phases: from the first on nobody else changes the VM.
fn protected(flags: c_uint) -> c_uint {
    flags | sys::VIR_MIGRATE_CHANGE_PROTECTION
}

/// Flags of the destination's phases: these two are for the source alone.
fn at_destination(flags: c_uint) -> c_uint {
    flags & !(sys::VIR_MIGRATE_ABORT_ON_ERROR | sys::VIR_MIGRATE_AUTO_CONVERGE)
}

/// Words of libvirt's error, on one line.
pub(super) fn words(error: &RawError) -> String {
    error.message().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Text in libvirt's memory.
pub(super) struct Text(*mut c_char);

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: libvirt made the text, which ends with a NUL, and nobody else has it.
        f.write_str(&unsafe { CStr::from_ptr(self.0) }.to_string_lossy())
    }
}

impl Drop for Text {
    fn drop(&mut self) {
        // SAFETY: from libvirt's allocator, which is malloc; freed once.
        unsafe { libc::free(self.0.cast()) };
    }
}

/// Bytes that one host tells the other through the client.
pub(super) struct Cookie {
    start: *mut c_char,
    length: c_int,
}

impl Cookie {
    pub(super) fn none() -> Self {
        Self { start: ptr::null_mut(), length: 0 }
    }
}

impl Drop for Cookie {
    fn drop(&mut self) {
        // SAFETY: from libvirt's allocator, which is malloc; freed once, and null is allowed.
        unsafe { libc::free(self.start.cast()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_phases_are_in_this_libvirt() {
        assert!(Functions::load().is_some());
    }

    #[test]
    fn the_flags_of_each_host_are_its_own() {
        let all = migrate::flags(&MigrateParams { auto_converge: true, ..MigrateParams::default() });
        assert_eq!(at_destination(all) & sys::VIR_MIGRATE_AUTO_CONVERGE, 0);
        assert_eq!(at_destination(all) & sys::VIR_MIGRATE_CHANGE_PROTECTION, 0);
        assert_eq!(protected(all) & !sys::VIR_MIGRATE_CHANGE_PROTECTION, all);
    }
}
