"""Every key of the policy: the test that shows what it changes, or the component it waits for.

A key with no logic behind it is a defect; this is the list that keeps it from coming back.
"""

from __future__ import annotations

# ruff: noqa: E501 - a table of names, one a line
import json
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from recovery.config import json_schema
from recovery.config.model import policy_document
from recovery.strategy import COMPONENTS

HERE = Path(__file__).parent

STRATEGY = "recovery.*.strategies.*"
TARGETS = "recovery.*.targets"
REDIS = "recovery.redis.targets"
RUNTIME = "*.runtime"
CHROMA = "recovery.chromadb.targets"
SYSTEM = "recovery.system.targets"
WEBUI = "recovery.openwebui.targets"
REBUILD = "recovery.chromadb.strategies.index_rebuild"
CLEANUP = "recovery.system.strategies.disk_cleanup"

BEHAVIOUR = {
    "recovery.max_attempts_per_hour": "test_three_recoveries_an_hour_and_no_more",
    "recovery.cooldown_seconds": "test_a_failure_cools_the_target_down_and_force_passes_it",
    "recovery.probation_seconds": "test_probation_admits_one_trial_a_cooldown_until_it_ends",
    "recovery.effective_after_seconds": "test_a_success_that_did_not_last_counts_as_failed",
    "recovery.queue_wait_seconds": "test_what_no_worker_takes_in_time_ends_with_an_alert_and_gives_its_attempt_back",
    "recovery.*.priority": "test_a_strategys_priority_comes_before_its_components",
    "recovery.*.max_attempts_per_hour": "test_a_components_limit_comes_before_everybodys",
    "recovery.*.cooldown_seconds": "test_a_components_limit_comes_before_everybodys",
    f"{TARGETS}.host": "test_a_target_of_one_host_is_repaired_on_that_hosts_queue",
    f"{TARGETS}.max_attempts_per_hour": "test_a_targets_own_limit_comes_before_the_components_and_everybodys",
    f"{TARGETS}.cooldown_seconds": "test_a_targets_own_cooldown_is_the_one_that_is_set",
    f"{STRATEGY}.name": "test_the_ladder_follows_the_policys_order_and_ends_with_all_else_failed",
    f"{STRATEGY}.conditions": "test_conditions_decide_which_failure_a_strategy_answers",
    f"{STRATEGY}.auto_trigger": "test_what_must_not_start_by_itself_waits_for_a_person",
    f"{STRATEGY}.requires_approval": "test_what_requires_approval_waits_even_when_a_person_asks",
    f"{STRATEGY}.priority": "test_a_strategys_priority_comes_before_its_components",
    f"{STRATEGY}.timeout_seconds": "test_a_remedy_that_overstays_is_stopped_and_says_so",
    f"{STRATEGY}.max_retries": "test_a_remedy_is_retried_as_often_as_the_policy_says_and_later_each_time",
    f"{STRATEGY}.backoff_seconds": "test_a_remedy_is_retried_as_often_as_the_policy_says_and_later_each_time",
    f"{STRATEGY}.backoff_multiplier": "test_a_remedy_is_retried_as_often_as_the_policy_says_and_later_each_time",
    "recovery.redis.strategies.reconnect.stale_after": "test_on_a_server_with_room_only_long_idle_connections_go",
    "recovery.redis.strategies.reconnect.idle_at_least": "test_on_a_full_server_the_longest_idle_make_room",
    "recovery.redis.strategies.reconnect.goal_percent": "test_on_a_full_server_the_longest_idle_make_room",
    f"{REDIS}.url": "test_a_healthy_server_is_healthy_and_has_figures",
    f"{REDIS}.username": "test_the_documented_rights_are_enough_for_probe_and_reconnect",
    f"{REDIS}.password": "test_a_refused_password_is_an_auth_failure",
    f"{REDIS}.password_file": "test_a_password_from_a_file_is_read_when_it_is_needed",
    f"{REDIS}.tls_ca_file": "test_a_server_behind_tls_is_probed_and_trusted_by_its_own_authority",
    f"{REDIS}.role": "test_a_replica_where_a_primary_is_expected_is_read_only",
    f"{REDIS}.connect_timeout": "test_a_server_that_drops_packets_is_a_connection_timeout",
    f"{REDIS}.thresholds.latency_ms": "test_a_slow_server_has_high_latency",
    f"{REDIS}.thresholds.memory_percent": "test_used_up_memory_is_pressure",
    f"{REDIS}.thresholds.clients_percent": "test_clients_near_the_limit_are_named_before_it_is_reached",
    f"{CHROMA}.snapshots.directory": "test_what_has_no_place_is_told_which_key_is_missing",
    f"{CHROMA}.snapshots.method": "test_a_snapshot_may_stop_the_server_and_starts_it_again",
    f"{CHROMA}.snapshots.interval": "test_a_snapshot_is_due_when_the_interval_has_passed",
    f"{CHROMA}.snapshots.keep": "test_only_so_many_are_kept",
    f"{CHROMA}.snapshots.grace": "test_a_server_that_does_not_end_is_never_killed_for_a_snapshot",
    f"{CHROMA}.snapshots.timeout": "test_a_snapshot_that_takes_too_long_does_not_count",
    "recovery.chromadb.strategies.orphan_removal.older_than": "test_folders_of_deleted_collections_are_found_removed_and_brought_back",
    "integration.snapshot_dir": "test_each_target_has_a_folder_of_its_own_below_the_snapshot_dir",
    "integration.chromadb_rollback_enabled": "test_a_rollback_that_is_switched_off_is_no_rung",
    "recovery.chromadb.strategies.snapshot_rollback.script": "test_the_playbooks_script_is_read_and_never_run",
    "recovery.chromadb.strategies.snapshot_rollback.salvage": "test_what_is_newer_than_the_snapshot_and_readable_is_carried_over_where_the_policy_says_so",
    "recovery.chromadb.strategies.snapshot_rollback.stop_grace": "test_a_damaged_server_that_ignores_term_is_killed_when_its_grace_is_over",
    f"{RUNTIME}.kind": "test_a_target_without_runtime_is_told_which_key_is_missing",
    f"{RUNTIME}.container": "test_a_crashed_container_is_replaced_and_serves",
    f"{RUNTIME}.labels": "test_a_container_is_found_by_its_labels_and_what_is_aside_is_not",
    f"{RUNTIME}.base_url": "test_an_engine_that_is_away_is_unavailable",
    f"{RUNTIME}.unit": "test_a_unit_is_seen_started_and_stopped",
    f"{RUNTIME}.scope": "test_a_unit_is_seen_started_and_stopped",
    f"{RUNTIME}.program": "test_a_program_is_seen_stopped_and_started",
    f"{RUNTIME}.url": "test_a_program_is_seen_stopped_and_started",
    f"{RUNTIME}.username": "test_a_password_is_sent_beside_the_url",
    f"{RUNTIME}.password": "test_a_password_is_sent_beside_the_url",
    f"{RUNTIME}.name": "test_a_server_is_started_in_the_background_seen_and_stopped",
    f"{RUNTIME}.start": "test_a_server_is_started_in_the_background_seen_and_stopped",
    f"{RUNTIME}.stop": "test_commands_that_return_are_believed_only_by_their_status",
    f"{RUNTIME}.status": "test_commands_that_return_are_believed_only_by_their_status",
    f"{RUNTIME}.start_returns": "test_commands_that_return_are_believed_only_by_their_status",
    f"{RUNTIME}.folder": "test_the_workers_own_settings_do_not_reach_the_process",
    f"{RUNTIME}.log_file": "test_a_server_is_started_in_the_background_seen_and_stopped",
    "recovery.redis.strategies.restart_container.stop_grace": "test_one_that_ignores_term_is_killed_after_the_grace",
    "recovery.redis.strategies.flush_corrupted.decode_at_most_bytes": "test_a_value_too_long_to_be_read_and_a_key_too_large_are_left_and_counted",
    "recovery.redis.strategies.flush_corrupted.largest_key_mb": "test_a_value_too_long_to_be_read_and_a_key_too_large_are_left_and_counted",
    "recovery.redis.strategies.flush_corrupted.key_patterns.pattern": "test_only_the_corrupted_keys_of_the_keyspace_go_and_all_are_kept",
    "recovery.redis.strategies.flush_corrupted.key_patterns.decodes_as": "test_a_key_that_breaks_the_rule_goes_and_one_that_keeps_it_stays",
    "recovery.redis.strategies.flush_corrupted.key_patterns.length": "test_a_key_that_breaks_the_rule_goes_and_one_that_keeps_it_stays",
    "recovery.redis.strategies.flush_corrupted.key_patterns.max": "test_a_key_that_breaks_the_rule_goes_and_one_that_keeps_it_stays",
    "recovery.redis.strategies.flush_corrupted.key_patterns.min": "test_a_key_that_breaks_the_rule_goes_and_one_that_keeps_it_stays",
    "recovery.redis.strategies.flush_corrupted.key_patterns.no_ttl": "test_a_key_that_breaks_the_rule_goes_and_one_that_keeps_it_stays",
    "recovery.redis.strategies.flush_corrupted.key_patterns.type": "test_a_key_that_breaks_the_rule_goes_and_one_that_keeps_it_stays",
    "undo.directory": "test_what_is_kept_is_known_everywhere_and_a_lost_control_plane_is_told_again",
    "undo.disk_budget_mb": "test_there_is_room_within_the_budget_and_never_for_the_last_of_the_disk",
    "undo.retention": "test_only_what_has_expired_is_discarded_and_may_be_twice",
    "recovery.redis.strategies.flush_corrupted.server_share": "test_the_server_rests_for_the_rest_of_its_time",
    "recovery.redis.strategies.flush_corrupted.scan_count": "test_a_smaller_portion_is_asked_for_more_often",
    f"{CHROMA}.url": "test_a_healthy_server_is_healthy_and_has_figures",
    f"{CHROMA}.path": "test_a_healthy_directory_is_healthy_down_to_its_queries",
    f"{CHROMA}.tenant": "test_the_collections_of_the_targets_own_database_are_meant",
    f"{CHROMA}.database": "test_the_collections_of_the_targets_own_database_are_meant",
    f"{CHROMA}.token": "test_a_refused_token_is_an_auth_failure",
    f"{CHROMA}.token_file": "test_a_refused_token_is_an_auth_failure",
    f"{CHROMA}.auth_header": "test_a_refused_token_is_an_auth_failure",
    f"{CHROMA}.tls_ca_file": "test_a_server_behind_tls_is_trusted_by_its_own_authority",
    f"{CHROMA}.collections": "test_fewer_records_than_expected_are_a_data_corruption",
    f"{CHROMA}.answer_timeout": "test_a_stopped_server_accepts_and_never_answers",
    f"{CHROMA}.thresholds.latency_ms": "test_a_slow_server_has_high_latency",
    f"{REBUILD}.embedding_functions": "test_where_no_vector_is_left_the_documents_are_embedded_anew",
    f"{REBUILD}.embedding_environment": "test_an_embedding_function_gets_the_named_variables_and_no_other",
    f"{REBUILD}.lock_patience": "test_a_lock_that_is_held_elsewhere_is_waited_for_and_no_longer",
    f"{CLEANUP}.thresholds.disk_usage_percent": "test_the_playbooks_thresholds_hold_for_targets_without_their_own",
    f"{CLEANUP}.cleanup_paths": "test_a_full_filesystem_loses_the_largest_first_and_no_more_than_it_must",
    f"{CLEANUP}.log_paths": "test_old_logs_are_compressed_until_there_is_room_and_nothing_else_is",
    f"{CLEANUP}.preserve_days": "test_young_is_what_was_written_or_changed_lately",
    f"{CLEANUP}.truncate_deleted": "test_a_policy_may_have_deleted_files_emptied_but_never_mapped_ones",
    "recovery.system.strategies.memory_gc.thresholds.memory_usage_percent": "test_the_playbooks_thresholds_hold_for_targets_without_their_own",
    "recovery.system.strategies.file_handle_cleanup.raise_hard_limit": "test_a_hard_limit_is_raised_only_where_the_policy_says_so",
    f"{SYSTEM}.filesystems": "test_a_disk_is_unwell_from_85_on_and_well_below_80",
    f"{SYSTEM}.watch": "test_what_is_not_watched_is_not_reported",
    f"{SYSTEM}.processes.name": "test_a_named_process_is_found_by_name_command_line_or_pidfile",
    f"{SYSTEM}.processes.cmdline": "test_a_named_process_is_found_by_name_command_line_or_pidfile",
    f"{SYSTEM}.processes.pidfile": "test_a_named_process_is_found_by_name_command_line_or_pidfile",
    "recovery.system.strategies.file_handle_cleanup.end_close_wait_after": "test_connections_that_only_the_process_keeps_are_ended_where_the_policy_says_so",
    "recovery.system.strategies.memory_gc.recycle_above_mb": "test_a_pool_process_that_is_too_large_is_replaced_after_its_task",
    "failsafe.reserve_mb": "test_a_reserve_is_given_up_on_a_full_disk_and_taken_back",
    f"{SYSTEM}.processes.worker": "test_a_worker_of_ours_that_takes_nothing_is_hung_and_restarted",
    f"{SYSTEM}.processes.socket": "test_a_socket_file_has_to_be_listened_on",
    f"{SYSTEM}.processes.url": "test_a_hung_server_still_accepts_and_is_restarted_as_it_does_not_answer",
    f"{SYSTEM}.processes.check": "test_what_could_not_be_started_again_is_not_stopped",
    "recovery.system.strategies.process_restart.stop_grace": "test_one_that_ignores_term_is_killed",
    "recovery.system.strategies.process_restart.steady": "test_one_that_ends_at_once_is_no_success_and_was_tried_twice",
    f"{SYSTEM}.processes.port": "test_a_process_has_to_accept_connections_on_its_port",
    f"{SYSTEM}.processes.heartbeat_file": "test_a_worker_without_a_sign_of_life_is_hung",
    f"{SYSTEM}.processes.heartbeat_seconds": "test_a_worker_without_a_sign_of_life_is_hung",
    f"{SYSTEM}.processes.open_files": "test_the_policy_may_name_the_limit",
    f"{SYSTEM}.processes.max_rss_mb": "test_a_process_may_have_a_bound_for_its_memory",
    f"{SYSTEM}.processes.leak_window": "test_a_process_that_grows_through_its_window_leaks_and_one_reading_says_nothing",
    f"{SYSTEM}.processes.leak_growth_percent": "test_a_process_that_grows_through_its_window_leaks_and_one_reading_says_nothing",
    f"{SYSTEM}.thresholds.disk_usage_percent.unhealthy": "test_the_thresholds_of_a_target_are_its_own",
    f"{SYSTEM}.thresholds.disk_usage_percent.healthy": "test_the_playbooks_thresholds_hold_for_targets_without_their_own",
    f"{SYSTEM}.thresholds.disk_full_percent": "test_the_thresholds_of_a_target_are_its_own",
    f"{SYSTEM}.thresholds.inode_usage_percent.unhealthy": "test_inodes_run_out_while_there_is_room",
    f"{SYSTEM}.thresholds.inode_usage_percent.healthy": "test_a_filesystem_without_inodes_gets_some_back",
    f"{SYSTEM}.thresholds.memory_usage_percent.unhealthy": "test_memory_is_short_from_its_threshold_on",
    f"{SYSTEM}.thresholds.memory_usage_percent.healthy": "test_memory_is_short_from_its_threshold_on",
    f"{SYSTEM}.thresholds.open_files_percent.unhealthy": "test_the_hosts_own_table_of_open_files_is_watched",
    f"{SYSTEM}.thresholds.open_files_percent.healthy": "test_a_process_at_its_limit_gets_more_and_opens_files_again",
    "alerting.enabled": "test_an_alert_that_the_policy_does_not_want_is_not_sent",
    "alerting.alert_on_recovery": "test_an_alert_that_the_policy_does_not_want_is_not_sent",
    "alerting.alert_on_cooldown": "test_an_alert_that_the_policy_does_not_want_is_not_sent",
    "alerting.alert_on_degraded_mode": "test_an_alert_that_the_policy_does_not_want_is_not_sent",
    "alerting.receive.enabled": "test_a_policy_may_want_no_alerts_from_outside",
    "alerting.receive.rules.match": "test_the_first_rule_that_fits_says_what_an_alert_means",
    "alerting.receive.rules.component": "test_the_first_rule_that_fits_says_what_an_alert_means",
    "alerting.receive.rules.target": "test_a_rule_takes_labels_for_its_words",
    "alerting.receive.rules.failure_type": "test_the_first_rule_that_fits_says_what_an_alert_means",
    "alerting.receive.repeat_after": "test_an_alert_that_still_fires_after_a_refusal_is_an_event_again",
    "alerting.receive.max_alerts": "test_a_huge_batch_is_taken_up_to_the_limit_and_says_what_was_left",
    "alerting.channels": "test_a_channel_that_the_policy_does_not_name_is_not_used",
    "alerting.runbook_url": "test_a_message_goes_out_by_mail_with_links_to_runbook_and_page",
    "alerting.webhooks.url": "test_a_webhook_is_told_in_batches_and_shows_its_token",
    "alerting.webhooks.url_file": "test_an_address_may_lie_in_a_file",
    "alerting.webhooks.token": "test_what_is_sent_does_not_follow_to_another_place",
    "alerting.webhooks.token_file": "test_a_webhook_is_told_in_batches_and_shows_its_token",
    "alerting.webhooks.tls_ca_file": "test_a_receiver_behind_tls_is_trusted_by_its_own_authority",
    "alerting.messages.url": "test_a_message_goes_out_by_mail_with_links_to_runbook_and_page",
    "alerting.messages.url_file": "test_an_address_of_a_message_may_lie_in_a_file",
    "alerting.messages.every": "test_a_storm_is_one_message_and_the_next_one_waits",
    "alerting.messages.at_least": "test_who_wants_only_the_worst_gets_only_that",
    "alerting.alertmanager.username": "test_alertmanager_is_shown_who_we_are",
    "alerting.alertmanager.password": "test_alertmanager_is_shown_who_we_are",
    "alerting.alertmanager.password_file": "test_alertmanager_is_shown_who_we_are",
    "alerting.alertmanager.token": "test_alertmanager_is_shown_who_we_are",
    "alerting.alertmanager.token_file": "test_alertmanager_is_shown_who_we_are",
    "alerting.alertmanager.tls_ca_file": "test_a_receiver_behind_tls_is_trusted_by_its_own_authority",
    "alerting.alertmanager.resend_after": "test_what_still_holds_is_told_again_before_it_would_end",
    "alerting.alertmanager.shown_for": "test_what_happened_is_shown_for_as_long_as_the_policy_says",
    "integration.prometheus_alertmanager": "test_what_holds_after_a_failure_is_shown_until_it_is_over",
    "integration.alert_on_recovery": "test_recoveries_stay_away_from_alertmanager_where_the_integration_says_so",
    "alerting.severity_mapping": "test_the_severity_of_an_alert_follows_the_policys_mapping",
    "degraded_modes.available_capabilities": "test_capabilities_are_what_the_mode_lists",
    "degraded_modes.unavailable_capabilities": "test_capabilities_are_what_the_mode_lists",
    "audit.enabled": "test_a_policy_without_an_audit_trail_counts_and_writes_no_entry",
    "audit.audit_file": "test_where_the_files_lie_is_the_policys_choice",
    "audit.compression_enabled": "test_compression_is_the_policys_choice",
    "audit.takeover_after": "test_a_silent_host_is_given_up",
    "audit.retention_days": "test_files_past_their_retention_go_the_oldest_first_and_the_rest_is_still_proved",
    "approvals.expires_after": "test_an_approval_expires_after_the_policys_time",
    "approvals.different_person": "test_a_policy_may_want_another_person_to_approve",
    "escalation.failures_for_level_3": "test_fewer_failures_call_a_person_where_the_policy_says_so",
    f"{TARGETS}.depends_on": "test_what_stands_on_a_failing_root_is_held_and_the_root_is_repaired",
    f"{TARGETS}.unattended": "test_a_target_may_let_a_strategy_run_without_a_person",
    f"{TARGETS}.probe.enabled": "test_a_target_may_be_left_to_other_detectors_and_all_may",
    f"{TARGETS}.probe.every": "test_a_target_has_its_own_interval_timeout_and_threshold",
    f"{TARGETS}.probe.deep_every": "test_deep_looks_come_at_the_playbooks_interval_where_there_are_light_ones",
    f"{TARGETS}.probe.timeout": "test_a_target_has_its_own_interval_timeout_and_threshold",
    f"{TARGETS}.probe.failures": "test_a_target_has_its_own_interval_timeout_and_threshold",
    f"{TARGETS}.probe.of": "test_a_target_has_its_own_interval_timeout_and_threshold",
    "detection.every": "test_a_target_has_its_own_interval_timeout_and_threshold",
    "detection.confirm_after": "test_a_first_failure_is_looked_at_again_until_it_is_sure",
    "detection.healthy_after": "test_health_that_lasts_clears_what_a_failed_recovery_left",
    "detection.flapping.changes": "test_a_target_that_keeps_going_up_and_down_is_left_alone_and_a_person_is_called",
    "detection.flapping.window": "test_changes_that_lie_far_apart_are_no_flapping",
    "detection.flapping.hold": "test_a_target_that_keeps_going_up_and_down_is_left_alone_and_a_person_is_called",
    "detection.storm.share": "test_when_too_much_fails_at_once_only_foundations_are_repaired_and_one_call_goes_out",
    "detection.storm.least": "test_a_few_targets_are_never_a_storm",
    "detection.storm.calm": "test_a_storm_is_over_only_when_it_has_been_calm_for_a_while",
    "integration.health_check_integration": "test_a_target_may_be_left_to_other_detectors_and_all_may",
    "integration.health_check_interval_seconds": "test_deep_looks_come_at_the_playbooks_interval_where_there_are_light_ones",
    "detection.failures": "test_two_failing_looks_of_three_make_a_failure_and_one_a_suspicion",
    "detection.of": "test_the_policy_says_how_many_looks_of_how_many",
    "control_plane.host": "test_a_control_redis_of_another_host_is_not_restarted_here",
    "failsafe.enabled": "test_a_guard_is_started_where_the_policy_wants_one",
    "failsafe.after_seconds": "test_nothing_is_done_before_the_control_plane_has_been_away_for_a_while",
    "failsafe.interval_seconds": "test_a_guard_killed_under_a_remedy_does_not_repeat_it_and_tells_of_it",
    "failsafe.unbound_host": "test_a_target_of_no_host_belongs_to_the_one_that_the_policy_names",
    "integration.metrics_export_interval_seconds": "test_a_text_file_is_written_again_at_every_interval",
    "integration.export_recovery_metrics": "test_a_policy_may_export_no_metrics",
    "http.enabled": "test_up_serves_unless_the_policy_says_otherwise",
    "http.host": "test_what_the_policy_says_of_tokens_and_addresses_holds",
    "http.port": "test_what_the_policy_says_of_tokens_and_addresses_holds",
    "http.token": "test_a_token_may_stand_in_the_policy_as_a_variable",
    "http.token_file": "test_what_the_policy_says_of_tokens_and_addresses_holds",
    "http.read_token": "test_a_token_may_stand_in_the_policy_as_a_variable",
    "http.read_token_file": "test_what_the_policy_says_of_tokens_and_addresses_holds",
    "http.public_url": "test_what_the_policy_says_of_tokens_and_addresses_holds",
    "http.allowed_hosts": "test_what_the_policy_says_of_tokens_and_addresses_holds",
    "http.trusted_proxies": "test_only_a_trusted_proxy_says_whose_request_it_is",
    "http.max_body_kb": "test_a_body_that_is_too_large_is_refused_however_it_comes",
    "http.requests_per_second": "test_whoever_asks_too_often_is_told_to_wait_and_others_are_not",
    "http.max_streams": "test_streams_have_a_limit_and_are_given_back",
    "http.metrics_textfile": "test_a_text_file_is_written_again_at_every_interval",
    "integration.consume_celery_default_queue": "test_a_producer_that_has_only_celery_needs_no_queue_name",
    f"{WEBUI}.base_url": "test_a_healthy_one_has_its_figures",
    f"{WEBUI}.email": "test_a_refused_token_is_replaced_by_one_that_works",
    f"{WEBUI}.password": "test_a_wrong_password_is_for_a_person_and_not_tried_again",
    f"{WEBUI}.password_file": "test_a_password_that_a_person_changed_is_tried_at_once",
    f"{WEBUI}.api_key": "test_an_api_key_is_proven_and_handed_to_applications",
    f"{WEBUI}.api_key_file": "test_an_api_key_outlives_a_change_of_the_secret",
    f"{WEBUI}.login_path": "test_the_old_path_is_a_setting_and_wrong_on_todays_servers",
    f"{WEBUI}.tls_ca_file": "test_a_certificate_is_trusted_by_its_own_authority_alone",
    f"{WEBUI}.model": "test_a_model_that_is_not_listed_is_unavailable",
    f"{WEBUI}.thresholds.latency_ms": "test_an_answer_later_than_the_threshold_is_high_latency",
    f"{WEBUI}.answer_timeout": "test_each_way_of_not_answering_has_its_name_and_its_end",
    f"{WEBUI}.completion_timeout": "test_a_listed_model_that_is_dead_is_found_by_asking_it",
    f"{WEBUI}.test_completion": "test_a_model_is_asked_when_the_policy_says_so",
    f"{WEBUI}.refresh_before": "test_a_token_is_renewed_before_its_end",
    f"{WEBUI}.return_after": "test_they_are_led_back_once_it_has_been_healthy_for_a_while",
    f"{WEBUI}.direct.provider": "test_an_openai_compatible_provider_is_another_road",
    f"{WEBUI}.direct.base_url": "test_applications_are_led_to_a_road_that_was_proven",
    f"{WEBUI}.direct.model": "test_applications_are_led_to_a_road_that_was_proven",
    f"{WEBUI}.direct.api_key_env": "test_a_host_without_the_key_proves_nothing",
    f"{WEBUI}.direct.api_key_file": "test_the_key_may_be_in_a_file",
    f"{WEBUI}.direct.headers": "test_headers_and_version_of_the_policy_are_sent",
    f"{WEBUI}.direct.anthropic_version": "test_headers_and_version_of_the_policy_are_sent",
    f"{WEBUI}.direct.max_tokens": "test_applications_are_led_to_a_road_that_was_proven",
    f"{WEBUI}.direct.test": "test_the_listing_of_models_proves_it_without_a_completion",
    "recovery.openwebui.strategies.model_failover.fallback_models": "test_the_fallbacks_are_the_policys_in_its_order",
    "recovery.openwebui.strategies.graceful_degradation.degraded_mode": "test_a_policy_that_forbids_the_mode_leads_around_without_it",
}

WAITING: dict[str, str] = {}


def keys(annotation: Any, path: str = "") -> Iterator[str]:
    """Every key below an annotation; a strategy's are under its name."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        name = annotation.model_fields.get("name")
        is_tag = name is not None and typing.get_origin(name.annotation) is typing.Literal
        tag = typing.get_args(name.annotation) if name and is_tag else ()
        base = f"{path}.{tag[0]}" if tag else path
        for key, field in annotation.model_fields.items():
            below = f"{base}.{key}".lstrip(".")
            yield from list(keys(field.annotation, below)) or [below]
        return
    for inner in typing.get_args(annotation):
        yield from keys(inner, path)


def shortened(key: str) -> str:
    """A key that every component or every strategy has, written once."""
    components = "|".join(COMPONENTS)
    key = re.sub(
        r"^(control_plane|recovery\.\w+\.targets(\.processes)?)\.runtime\.", f"{RUNTIME}.", key
    )
    wide = re.sub(rf"^recovery\.({components})\.strategies\.\w+\.", f"{STRATEGY}.", key)
    wide = re.sub(rf"^recovery\.({components})\.", "recovery.*.", wide)
    return wide if wide in BEHAVIOUR else key


def test_every_key_changes_something_or_says_what_it_waits_for() -> None:
    found = {shortened(key) for key in keys(policy_document())}

    assert found == set(BEHAVIOUR) | set(WAITING)
    assert not set(BEHAVIOUR) & set(WAITING)


def test_every_test_named_here_exists() -> None:
    text = "\n".join(path.read_text() for path in HERE.rglob("test_*.py"))

    assert [name for name in set(BEHAVIOUR.values()) if f"def {name}(" not in text] == []


def test_the_published_schema_is_the_current_one() -> None:
    published = json.loads((HERE.parent / "recovery_config.schema.json").read_text())

    assert published == json_schema(), "run: recovery config schema > recovery_config.schema.json"


def test_an_editor_that_knows_the_schema_finds_nothing_wrong_in_what_we_ship() -> None:
    schema = Draft202012Validator(json_schema())

    for path in (HERE.parent / "recovery_config.yml", *(HERE.parent / "compose").glob("*.yml")):
        document = yaml.safe_load(path.read_text())
        if "recovery" in document:
            assert [error.message for error in schema.iter_errors(document)] == [], path
