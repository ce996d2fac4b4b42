"""Runs in a PostgreSQL database: the tests of a file's store and recorder, and what is its own."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from support.postgres import PostgresServer

from assay_monitors.codec import gold_to_json
from assay_monitors.database import (
    CommitInDoubtError,
    ReadTimeoutError,
    StoreError,
    StoreUnavailableError,
)
from assay_monitors.gold import GoldPoint
from assay_monitors.history import RunHistory
from assay_monitors.postgres import PostgresDatabase
from assay_monitors.recorder import Recorder
from assay_monitors.retention import Retention
from assay_monitors.store import Changes, RunStore

from .stores import CODE, Clock, Disk, changes_of, items, open_store, stored_items, window
from .test_bounds import (
    test_a_run_of_many_gold_sources_has_a_bounded_number_of_them,
)
from .test_recorder import (
    test_a_change_of_another_writer_is_refused_and_counted,
    test_a_deletion_includes_what_was_recorded_before_and_nothing_after,
    test_a_failed_commit_is_repeated_without_loss,
    test_a_known_run_is_written_when_it_is_due,
    test_an_edit_follows_what_was_recorded_before,
    test_concurrent_records_are_all_written,
    test_on_commit_gets_the_runs_that_were_written,
    test_the_step_that_was_named_last_is_stored,
)
from .test_store import (
    test_a_deleted_run_leaves_nothing_behind,
    test_a_long_series_loses_resolution_but_no_observation,
    test_a_renamed_run_keeps_its_steps_gold_note_and_times,
    test_a_run_is_not_renamed_to_another_and_nothing_is_changed,
    test_a_second_gold_measurement_of_a_step_replaces_the_first,
    test_a_write_adds_to_the_stored_summary,
    test_a_write_does_not_change_its_argument,
    test_an_empty_note_removes_the_note,
    test_expected_runs_are_known_before_they_are_stored,
    test_health_of_a_stored_series_is_that_of_the_series,
    test_runs_streams_and_steps_are_kept_apart,
    test_telemetry_is_part_of_every_stream,
    test_the_largest_values_are_stored_exactly,
    test_the_most_recently_seen_runs_are_kept,
    test_the_number_of_runs_is_bounded_after_each_commit,
    test_two_processes_may_write_one_file,
)
