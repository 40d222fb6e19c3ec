# The short way to everything; CMake does the work. Presets for debugging and sanitizers: cmake --list-presets
BUILD ?= build
PREFIX ?= /usr/local
# Options for CMake, as in: make CMAKE_FLAGS=-DHYPURA_LLAMA_DIR=/src/llama.cpp
CMAKE_FLAGS ?=
# Ninja uses every core by itself; a job count given to make is passed on.
JOBS = $(patsubst -j%,%,$(filter -j%,$(MAKEFLAGS)))
NINJA = cmake --build $(BUILD) $(addprefix --parallel ,$(filter-out 0,$(JOBS)))
# One job at a time here: what runs below is parallel by itself, and its job server is not make's.
.NOTPARALLEL:

.PHONY: all deps models demo check install clean help

all: $(BUILD)/build.ninja ## build hypura (the default)
	@$(NINJA) --target hypura hypura-engine

deps: ## install the system packages the build needs
	@scripts/deps.sh $(CMAKE_FLAGS)

# Ninja configures again by itself; what needs looking at before it can is the list of packages.
$(BUILD)/build.ninja: scripts/deps.sh
	@scripts/deps.sh $(CMAKE_FLAGS)
	@cmake -G Ninja -S . -B $(BUILD) $(CMAKE_FLAGS)
	@touch $@

models: all ## fetch and make the demonstration models, in build/models
	@$(NINJA) --target mkmodel
	@scripts/models.sh $(BUILD)

demo: models ## run both models in half the memory they need
	@scripts/demo.sh $(BUILD)

check: $(BUILD)/build.ninja ## build everything and run all tests
	@scripts/deps.sh --browser
	@$(NINJA)
	@ctest --test-dir $(BUILD) --output-on-failure --parallel $$(($$(getconf _NPROCESSORS_ONLN) + 6)) # half of their time they wait

install: $(BUILD)/build.ninja ## install under PREFIX (/usr/local); DESTDIR is respected
	@$(NINJA) --target hypura hypura-engine ggml_hypura man
	@cmake --install $(BUILD) --prefix $(PREFIX)

clean: ## remove the build folder; llama.cpp stays built in the user's cache
	@rm -rf $(BUILD)

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 10
