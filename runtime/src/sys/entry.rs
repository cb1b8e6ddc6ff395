// SPDX-License-Identifier: Apache-2.0
//! Where both programs begin: before the C library's start relocates the program (static-pie), it has the kernel bring in what will be written.
//!
//! Each relocated page of the file is two page faults, one to read it and one to copy it, some thirty pages in each execution of
//! the shim; MADV_POPULATE_WRITE (madvise(2), Linux 5.14) is one call for all. Where the kernel does not know it, the faults do it.
//! The build scripts name `corten_entry` to the linker. It changes nothing that anybody sees but time.
//! For x86_64 alone: on aarch64 the programs are linked to a fixed address, and nothing is relocated.

#![deny(missing_docs)]

use core::arch::global_asm;

// No stack, no data: nothing is relocated yet. The file's program headers lie where the linker says that the image begins (elf(5)): the
// first that is PT_LOAD (1) and writable (PF_W, 2) is populated as far as the file goes; .bss comes behind.
global_asm!(
    ".weak _start",
    ".hidden __ehdr_start",
    ".globl corten_entry",
    ".type corten_entry, @function",
    "corten_entry:",
    "lea r8, [rip + __ehdr_start]",
    "movzx r9d, word ptr [r8 + {phnum}]",
    "mov r10, [r8 + {phoff}]",
    "add r10, r8",
    "2: cmp dword ptr [r10], 1",
    "jne 3f",
    "test dword ptr [r10 + 4], 2",
    "jz 3f",
    "mov rdi, [r10 + {vaddr}]",
    "add rdi, r8",
    "mov rsi, [r10 + {filesz}]",
    "add rsi, rdi",
    "and rdi, -4096",
    "sub rsi, rdi",
    "mov edx, {populate}",
    "mov eax, {madvise}",
    "syscall",
    "xor edx, edx",
    "jmp _start",
    "3: add r10, {header}",
    "dec r9d",
    "jnz 2b",
    "xor edx, edx",
    "jmp _start",
    ".size corten_entry, . - corten_entry",
    phnum = const core::mem::offset_of!(libc::Elf64_Ehdr, e_phnum),
    phoff = const core::mem::offset_of!(libc::Elf64_Ehdr, e_phoff),
    vaddr = const core::mem::offset_of!(libc::Elf64_Phdr, p_vaddr),
    filesz = const core::mem::offset_of!(libc::Elf64_Phdr, p_filesz),
    header = const size_of::<libc::Elf64_Phdr>(),
    populate = const libc::MADV_POPULATE_WRITE,
    madvise = const libc::SYS_madvise,
);
