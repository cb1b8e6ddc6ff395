# SPDX-License-Identifier: Apache-2.0
#
# One entry point per task; what a task does stands in the script it calls. `make help` lists them.

TARGET  ?= x86_64-unknown-linux-musl
# What is installed. `make test` and `make demo` use the profile `fast` (Cargo.toml says why).
PROFILE ?= release
PREFIX  ?= /usr/local
DESTDIR ?=
CARGO   ?= cargo
V       ?=
SHIM    ?=
LONG    ?=

BIN      = target/$(TARGET)/$(PROFILE)
BINDIR   = $(DESTDIR)$(PREFIX)/bin
MANDIR   = $(DESTDIR)$(PREFIX)/share/man/man8
MANPAGES = $(wildcard docs/man/*.8)
# Where bash, zsh and fish look for completions.
SHARE    = $(DESTDIR)$(PREFIX)/share
BASHDIR  = $(SHARE)/bash-completion/completions
ZSHDIR   = $(SHARE)/zsh/site-functions
FISHDIR  = $(SHARE)/fish/vendor_completions.d
ENV      = TARGET=$(TARGET) CARGO=$(CARGO) V=$(V)

.DEFAULT_GOAL := build
.PHONY: help demo engines build test test-unit test-native-v1 test-native-v2 test-uml test-uml-systemd test-shim test-kernel test-twins kernels criu-test kubernetes \
