//! A program in the kernel that looks at every packet the commands send, and drops those to the address where a
//! cloud tells its machines their secrets. Names may be asked for there: in some clouds nobody else answers.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

/// Source: the metadata services of GCE, EC2, Azure and OpenStack, which share it.
const ADDRESS: [u8; 4] = [169, 254, 169, 254];
/// Source: EC2's, `fd00:ec2::254`.
const ADDRESS_V6: [u8; 16] = [0xfd, 0, 0x0e, 0xc2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02, 0x54];
const NAMES_PORT: u16 = 53;

// Source: include/uapi/linux/bpf.h.
const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const CGROUP_SKB: u32 = 8;
const EGRESS: u32 = 1;
const ALLOW_MULTI: u32 = 2;
const SKB_DATA: i16 = 76;
const SKB_DATA_END: i16 = 80;

/// One instruction of the kernel's machine.
#[repr(C)]
#[derive(Clone, Copy)]
struct Op {
    code: u8,
    registers: u8,
    offset: i16,
    value: i32,
}

const fn op(code: u8, to: u8, from: u8, offset: i16, value: i32) -> Op {
    let registers = if cfg!(target_endian = "little") {
        to | from << 4
    } else {
        to << 4 | from
    };
    Op {
        code,
        registers,
        offset,
        value,
    }
}

const MOVE_VALUE: u8 = 0xb7;
const MOVE: u8 = 0xbf;
const ADD_VALUE: u8 = 0x07;
const SHIFT_RIGHT: u8 = 0x77;
const LOAD_32: u8 = 0x61;
const LOAD_16: u8 = 0x69;
const LOAD_8: u8 = 0x71;
const IF_GREATER: u8 = 0x2d;
const IF_EQUAL: u8 = 0x15;
const IF_DIFFERS: u8 = 0x55;
const IF_DIFFERS_32: u8 = 0x56;
const EXIT: u8 = 0x95;

/// Register 0 is the answer, 1 lets the packet pass; 1 the packet's description, 2 and 3 its begin and end.
fn program() -> Vec<Op> {
    let word = |bytes: &[u8]| i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let mut ops = vec![
        op(MOVE_VALUE, 0, 0, 0, 1),
        op(LOAD_32, 2, 1, SKB_DATA, 0),
        op(LOAD_32, 3, 1, SKB_DATA_END, 0),
        op(MOVE, 4, 2, 0, 0),
        op(ADD_VALUE, 4, 0, 0, 20),
        op(IF_GREATER, 4, 3, 0, 0), // to PASS
        op(LOAD_8, 5, 2, 0, 0),
        op(SHIFT_RIGHT, 5, 0, 0, 4),
        op(IF_EQUAL, 5, 0, 0, 6),   // to V6
        op(IF_DIFFERS, 5, 0, 0, 4), // to PASS
        op(LOAD_32, 5, 2, 16, 0),
        op(IF_DIFFERS_32, 5, 0, 0, word(&ADDRESS)), // to PASS
        // A head without options, whole, to the port for names.
        op(LOAD_8, 5, 2, 0, 0),
        op(IF_DIFFERS, 5, 0, 0, 0x45), // to DROP
        op(MOVE, 4, 2, 0, 0),
        op(ADD_VALUE, 4, 0, 0, 24),
        op(IF_GREATER, 4, 3, 0, 0), // to DROP
        op(LOAD_16, 5, 2, 22, 0),
        op(
            IF_EQUAL,
            5,
            0,
            0,
            i32::from(u16::from_ne_bytes(NAMES_PORT.to_be_bytes())),
        ), // to PASS
    ];
    let (to_pass, to_drop, to_v6) = ([5, 9, 11, 18], [13, 16], 8);
    let drop = ops.len();
    ops.push(op(MOVE_VALUE, 0, 0, 0, 0));
    ops.push(op(EXIT, 0, 0, 0, 0));
    let v6 = ops.len();
    ops.push(op(MOVE, 4, 2, 0, 0));
    ops.push(op(ADD_VALUE, 4, 0, 0, 40));
    let mut to_pass = to_pass.to_vec();
    to_pass.push(ops.len());
    ops.push(op(IF_GREATER, 4, 3, 0, 0));
    for (n, part) in ADDRESS_V6.chunks(4).enumerate() {
        ops.push(op(LOAD_32, 5, 2, 24 + 4 * n as i16, 0));
        to_pass.push(ops.len());
        ops.push(op(IF_DIFFERS_32, 5, 0, 0, word(part)));
    }
    ops.push(op(MOVE_VALUE, 0, 0, 0, 0));
    let pass = ops.len();
    ops.push(op(EXIT, 0, 0, 0, 0));
    let mut jump = |from: usize, to: usize| ops[from].offset = (to - from - 1) as i16;
    jump(to_v6, v6);
    to_drop.iter().for_each(|&from| jump(from, drop));
    to_pass.iter().for_each(|&from| jump(from, pass));
    ops
}

/// What `bpf` is told to load; the kernel takes all behind it as zero.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    ops: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel: u32,
    flags: u32,
    name: [u8; 16],
    device: u32,
    attach: u32,
}

#[repr(C)]
struct Attach {
    group: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

fn bpf<T>(command: libc::c_int, told: &T) -> io::Result<libc::c_long> {
    // SAFETY: `told` is what the command reads, of the size given, and lives as long as the call; what it points to
    // does too.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(told), size_of::<T>()) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(done)
}

fn load() -> io::Result<OwnedFd> {
    let ops = program();
    let load = Load {
        kind: CGROUP_SKB,
        count: ops.len() as u32,
        ops: ops.as_ptr() as u64,
        license: c"BSD".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel: 0,
        flags: 0,
        name: *b"burrow_metadata\0",
        device: 0,
        attach: EGRESS,
    };
    let fd = bpf(PROG_LOAD, &load)?;
    // SAFETY: the call made it, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}

/// Puts it before all that is in a group and below it, for as long as the group is there.
pub fn attach(group: &Path) -> io::Result<()> {
    let program = load()?;
    let group = File::open(group)?;
    let attach = Attach {
        group: group.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: EGRESS,
        flags: ALLOW_MULTI,
    };
    bpf(PROG_ATTACH, &attach).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROG_TEST_RUN: libc::c_int = 10;

    #[repr(C)]
    #[derive(Default)]
    struct TestRun {
        program: u32,
        answer: u32,
        size_in: u32,
        size_out: u32,
        data_in: u64,
        data_out: u64,
        repeat: u32,
        duration: u32,
        context: [u64; 3],
    }

    fn passes(program: &OwnedFd, packet: &[u8]) -> bool {
        // The kernel takes the Ethernet head off.
        let mut frame = vec![0; 12];
        frame.extend(if packet[0] >> 4 == 6 { [0x86, 0xdd] } else { [8, 0] });
        frame.extend(packet);
        let run = TestRun {
            program: program.as_raw_fd() as u32,
            size_in: frame.len() as u32,
            data_in: frame.as_ptr() as u64,
            repeat: 1,
            ..TestRun::default()
        };
        bpf(PROG_TEST_RUN, &run).expect("it runs");
        run_answer(&run) == 1
    }

    fn run_answer(run: &TestRun) -> u32 {
        // SAFETY: the kernel wrote it behind the compiler's back.
        unsafe { std::ptr::read_volatile(&raw const run.answer) }
    }

    fn v4(to: [u8; 4], port: u16, first: u8) -> Vec<u8> {
        let mut packet = vec![first, 0, 0, 60, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1];
        packet.extend(to);
        packet.extend([0x80, 0]);
        packet.extend(port.to_be_bytes());
        packet.resize(60, 0);
        packet
    }

    #[test]
    fn only_packets_for_the_metadata_are_dropped_and_names_may_be_asked_for() {
        let program = match load() {
            Ok(program) => program,
            Err(why) => {
                // Only with the right to it can it be tried.
                assert_ne!(
                    rustix::process::geteuid().as_raw(),
                    0,
                    "as root it is loaded: {why}"
                );
                return;
            }
        };
        for (packet, passes_it) in [
            (v4([10, 0, 0, 2], 80, 0x45), true),
            (v4(ADDRESS, 80, 0x45), false),
            (v4(ADDRESS, 53, 0x45), true),
            (v4(ADDRESS, 53, 0x46), false),
            (v4([169, 254, 169, 253], 80, 0x45), true),
        ] {
            assert_eq!(passes(&program, &packet), passes_it, "{packet:?}");
        }
        let mut v6 = vec![0x60; 24];
        v6.extend(ADDRESS_V6);
        v6.resize(60, 0);
        assert!(!passes(&program, &v6));
        v6[39] = 0x55;
        assert!(passes(&program, &v6));
    }
}
