"""The tests of a file's store, its bounds and its recorder, with a PostgreSQL database instead."""

from collections.abc import Iterator

import pytest

from assay_monitors.history import RunHistory
from assay_monitors.postgres import PostgresDatabase

from . import test_bounds, test_recorder, test_store
from .stores import Disk

# What these tests check of a store holds for each database; the others are about the file.
test_additions = test_store.test_a_write_adds_to_the_stored_summary
test_arguments = test_store.test_a_write_does_not_change_its_argument
test_separation = test_store.test_runs_streams_and_steps_are_kept_apart
test_telemetry = test_store.test_telemetry_is_part_of_every_stream
test_gold = test_store.test_a_second_gold_measurement_of_a_step_replaces_the_first
test_recent_runs = test_store.test_the_most_recently_seen_runs_are_kept
test_long_series = test_store.test_a_long_series_loses_resolution_but_no_observation
test_number_of_runs = test_store.test_the_number_of_runs_is_bounded_after_each_commit
test_two_writers = test_store.test_two_processes_may_write_one_file
test_largest_values = test_store.test_the_largest_values_are_stored_exactly
test_renaming = test_store.test_a_renamed_run_keeps_its_steps_gold_note_and_times
test_taken_name = test_store.test_a_run_is_not_renamed_to_another_and_nothing_is_changed
test_notes = test_store.test_an_empty_note_removes_the_note
test_expected_runs = test_store.test_expected_runs_are_known_before_they_are_stored
test_own_runs = test_bounds.test_an_owner_forgets_its_own_runs_for_new_ones_and_no_other_owner_does
test_share = test_bounds.test_an_owner_with_less_than_its_share_takes_the_place_of_one_with_more
test_pins = test_bounds.test_a_pinned_run_is_never_forgotten_and_pins_are_bounded
test_writers = test_bounds.test_a_run_is_changed_by_its_owner_and_by_an_admin_only
test_failed_commit = test_recorder.test_a_failed_commit_is_repeated_without_loss
test_known_run = test_recorder.test_a_known_run_is_written_when_it_is_due
test_concurrent_records = test_recorder.test_concurrent_records_are_all_written
test_on_commit = test_recorder.test_on_commit_gets_the_runs_that_were_written
test_deletion = test_recorder.test_a_deletion_includes_what_was_recorded_before_and_nothing_after
test_edit = test_recorder.test_an_edit_follows_what_was_recorded_before
test_another_writer = test_recorder.test_a_change_of_another_writer_is_refused_and_counted
test_last_step = test_recorder.test_the_step_that_was_named_last_is_stored


@pytest.fixture
def path(postgres_url: str) -> Iterator[PostgresDatabase]:
    database = PostgresDatabase(postgres_url)
    yield database
    database.close()


@pytest.fixture
def disk(path: PostgresDatabase) -> Disk:
    return Disk(path)


@pytest.fixture
def history(path: PostgresDatabase) -> RunHistory:
    return RunHistory(path)
