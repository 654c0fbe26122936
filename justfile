# `just` lists the recipes. Everything CI runs is here, and runs the same way here.

set shell := ["bash", "-euo", "pipefail", "-c"]
set ignore-comments := true

# The tools are those of .venv, whether or not a shell has activated it.
export PATH := justfile_directory() / ".venv/bin" + ":" + env("PATH")

# Rooms that do no I/O: every line and every branch of them is tested.
pure := "errors documents backup_errors backup/frames backup/manifest backup/retention model limits feed decision payload keys namespaces regex selectors matchers policies reduce producers starts writes protocol canonical/changes canonical/numbered canonical/projection_rules canonical/record canonical/values stream_errors streams/accesses streams/appending streams/changes streams/checks streams/creation streams/ending streams/looking streams/messages streams/offset streams/record streams/removal streams/subscriptions/globs streams/subscriptions/looking streams/subscriptions/making streams/subscriptions/pending streams/subscriptions/record streams/subscriptions/step streams/subscriptions/tokens streams/subscriptions/verify streams/subscriptions/waking streams/values streams/verify"
pure_files := prepend("exo_stream/", append(".py", pure)) + " " + prepend("exo_stream/", append("/*", pure))

# Programs without an extension that are Python all the same; the tools find such files only by name.
programs := `grep -lsE '^#!.*python' scripts/* | tr '\n' ' ' || true`

# Tests beside one another: one worker a core, at most four.
beside := "--numprocesses logical --maxprocesses 4 --dist worksteal"

[private]
default:
    @just --list --unsorted

# Once, and after every change of requirements/: everything in .venv
setup:
    scripts/setup dev

# While you work: just test tests/test_engine.py -k evict; to debug, add -n0
test *args:
    pytest -m "not slow" {{ beside }} {{ args }}

# Before you push: everything CI checks
check: fmt-check lint types layers docs (cover beside)

# Let the formatter and the safe fixes have their way
fmt:
    ruff format . {{ programs }}
    ruff check --fix . {{ programs }}

fmt-check:
    ruff format --check . {{ programs }}

# Ruff for Python, flake8-async for Trio, deptry for the dependencies
lint:
    ruff check . {{ programs }}
    # 114 wants a list of our startable functions kept here;
    # 910 wants a checkpoint on every way out, which the steps inside an actor's loop need not have: the loop has it;
    # 911 to 913 want a checkpoint before every yield and in every loop, which async generators have and we have none.
    flake8 --isolated --select=ASYNC --disable=ASYNC114,ASYNC911,ASYNC912,ASYNC913 \
        '--per-file-ignores=tests/*:ASYNC910 exo_stream/actors/*:ASYNC910' exo_stream tests {{ programs }}
    deptry exo_stream

types:
    mypy exo_stream tests scripts/benchmarks {{ programs }}

# Which module may import which
layers:
    lint-imports

# All tests, slow ones too, with branch coverage; one after another, unless told otherwise: -n2
cover *args:
    mkdir -p build
    coverage erase
    coverage run -m pytest {{ args }} | tee build/pytest.txt
    coverage combine --quiet
    coverage report
    coverage report --fail-under=100 --include="{{ replace(pure_files, " ", ",") }}"
    # Once more and last, so that whoever reads only the end of a log has the verdict.
    tail -n 1 build/pytest.txt

# The documentation, in build/docs/index.html; a warning is an error
docs:
    sphinx-build -W -n --keep-going -q -b html docs build/docs

# The table of docs/performance.md; `just bench --quick` takes a minute
bench *args:
    scripts/bench {{ args }}

# A thousand kills, and whatever else takes an hour
torture *args:
    scripts/torture {{ args }}

# After a change of proto/: the messages of Exoware's API, made again
protos:
    scripts/protos

# Choose new versions, within pyproject.toml, and write them with their hashes into requirements/
lock *args:
    #!/usr/bin/env bash
    set -euo pipefail
    compile() {
        uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
            --custom-compile-command "just lock" "$@" {{ args }}
    }
    compile --group dev pyproject.toml --output-file requirements/dev.txt
    compile --constraint requirements/dev.txt pyproject.toml --output-file requirements/run.txt
    compile --constraint requirements/dev.txt --group setup --output-file requirements/setup.txt
