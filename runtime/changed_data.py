"""A run that is resumed on other data: what no longer holds is forgotten, and said."""


def follow_changed_data(console, what, before, now, *, position, running, schedule, steps_per_epoch, unreadable=None):
    """
    Compare the fingerprints of the data before and now, {"trained_on", "scored_on"}; one that an old checkpoint lacks counts as unchanged.

    Trained on other data: the epoch begins anew. Scored on other data: the best score so far is forgotten, since scores on different data
    cannot be compared. what: "patches", "chips".
    """
    if before.get("trained_on", now["trained_on"]) != now["trained_on"]:
        console.say(f"other {what} are trained on than before{': the epoch begins anew' if position.step_in_epoch else ''}")
        position.restart_epoch(steps_per_epoch)
        running.reset()
        if unreadable is not None:
            unreadable.load_state_dict({})
    if before.get("scored_on", now["scored_on"]) != now["scored_on"]:
        console.say(f"other {what} are scored than before: the best score so far no longer counts")
        position.forget_best()
        schedule.forget_scores()
