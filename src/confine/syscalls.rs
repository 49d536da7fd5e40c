//! System calls that a server never makes, and that an attacker begins with.
//!
//! A list of what is refused, not of what is allowed: the C library and the kernel get new calls all the time, and one that was
//! forgotten would be a node that stands still. What is refused fails with EPERM, as if the user weren't allowed to.

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};
use std::collections::BTreeMap;
use std::env::consts::ARCH;

/// On all architectures.
const REFUSED: &[i64] = &[
    // Running programs.
    libc::SYS_execve,
    libc::SYS_execveat,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // Mounts, roots, namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_mount_setattr,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_setns,
    libc::SYS_unshare,
    // The kernel itself.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_syslog,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_vhangup,
    libc::SYS_personality,
    // Clocks and names of the host.
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    // Keys.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // Files past their paths, and IO past this filter.
    libc::SYS_open_by_handle_at,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_mknodat,
    libc::SYS_fanotify_init,
    // Other users.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
];

/// On x86-64 alone.
#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[i64] =
    &[libc::SYS_kexec_file_load, libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt, libc::SYS_mknod];

/// On others.
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[i64] = &[];

/// x32, which x86-64 kernels may have as well: the same calls by other numbers.
const X32: i64 = 0x4000_0000;
/// Those of [`REFUSED`] that have other numbers there: execve, ptrace, `kexec_load`, `process_vm_readv`, `process_vm_writev`, execveat.
const X32_OWN: [i64; 6] = [520, 521, 528, 539, 540, 545];

/// Refuses them; how many they are.
pub(super) fn refuse() -> Result<String, String> {
    let architecture = TargetArch::try_from(ARCH).map_err(|_| format!("there is no filter for {ARCH}"))?;
    let refused = || REFUSED.iter().chain(REFUSED_HERE).copied();
    let mut rules: BTreeMap<i64, Vec<_>> = refused().map(|number| (number, Vec::new())).collect();
    if cfg!(target_arch = "x86_64") {
        rules.extend(refused().chain(X32_OWN).map(|number| (X32 + number, Vec::new())));
    }
    let eperm = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, eperm, architecture);
    let told = |error: seccompiler::Error| error.to_string();
    let program: BpfProgram = filter.and_then(BpfProgram::try_from).map_err(|error| error.to_string())?;
    apply_filter(&program).map_err(told)?;
    Ok(format!("{} refused that no server makes", refused().count()))
}
