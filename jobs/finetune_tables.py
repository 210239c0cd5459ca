"""Tables of what fine-tuning does."""

import pyarrow as pa

from jobs.columns import DATA, INTEGER, REAL, TEXT, TRUTH, Column

_FLOATS = pa.list_(pa.float32())

_RECIPE = (
    Column("task", TEXT, "the study's name for the task"),
    Column("method", TEXT, "lora, dora, norm_lr, inverse_norm_lr or norm_group_lora"),
    Column("intervention", TEXT, "what was done to the head's norms first"),
    Column("clip", REAL, "quantile of the intervention clip; null for others"),
    Column("rank", INTEGER, "rank of the adapters"),
    Column("targets", TEXT, "adapted modules as the study names them, joined by +"),
    Column("seed", INTEGER, "seed of adapters, order and dropout"),
    Column("lr", REAL, "learning rate of AdamW"),
)
"""What a trial is known by."""

FINETUNE_TABLES: dict[str, tuple[Column, ...]] = {
    "finetunes": (
        *_RECIPE,
        Column("groups", INTEGER, "norm groups of norm_group_lora; null for others"),
        Column("alpha", REAL, "LoRA's α"),
        Column("dropout", REAL, "dropout before the adapters"),
        Column("epochs", INTEGER, "passes over the training examples that were asked for"),
        Column("epochs_run", INTEGER, "passes that were made; fewer where a search stopped it"),
        Column("steps_run", INTEGER, "optimizer steps taken", "steps"),
        Column("batch_size", INTEGER, "examples of an optimizer step"),
        Column("weight_decay", REAL, "weight decay of AdamW"),
        Column("searched", TRUTH, "whether it is a trial of a learning-rate search"),
        Column("n_training", INTEGER, "training examples"),
        Column("n_validation", INTEGER, "validation examples"),
        Column("n_truncated", INTEGER, "examples cut from the left to fit the longest length"),
        Column("template", TEXT, "what the model read before the answer"),
        Column("template_fingerprint", TEXT, "SHA-256 of all prompts and answers, in order"),
        Column("adapted_modules", pa.list_(pa.string()), "names of the adapted modules"),
        Column("trainable_parameters", INTEGER, "parameters that were trained"),
        Column("head_untied", TRUTH, "whether a tied head was copied so that it alone changes"),
        Column("loss_none", REAL, "validation loss before any intervention", "nats/token"),
        Column(
            "loss_pre", REAL, "validation loss before training, interventions made", "nats/token"
        ),
        Column("loss_post", REAL, "validation loss after training", "nats/token"),
        Column("validation_losses", _FLOATS, "validation loss after each epoch", "nats/token"),
        Column("training_losses", _FLOATS, "mean training loss of each epoch", "nats/token"),
        Column("finetunability", REAL, "(loss_pre − loss_post)/loss_pre"),
        Column("damage", REAL, "loss_pre − loss_none: what the intervention costs", "nats/token"),
        Column("net_gain", REAL, "(loss_none − loss_post)/loss_none"),
        Column("forgetting_dataset", TEXT, "the study's name for the general text"),
        Column("text_loss_pre", REAL, "its loss before training and intervention", "nats/token"),
        Column("text_loss_post", REAL, "its loss after training", "nats/token"),
        Column("forgetting", REAL, "text_loss_post − text_loss_pre", "nats/token"),
        Column("norm_cv_tuned", REAL, "norm CV of the head that training began with"),
        Column("beta", REAL, "slope of ln‖Δw‖ on ln‖w‖ over the head's tokens; theory: 0"),
        Column("beta_se", REAL, "its standard error"),
        Column("beta_seen", REAL, "likewise over tokens that occur in the training examples"),
        Column("beta_unseen", REAL, "likewise over those that don't"),
        Column("beta_given_count", REAL, "likewise over seen tokens, ln of their count controlled"),
        Column("forward_dtype", TEXT, "precision of the frozen weights"),
    ),
    "updates": (
        *_RECIPE,
        Column("decile", INTEGER, "tenth of the head's tokens by norm, 1 the smallest"),
        Column("tokens_of", TEXT, "all, seen (in the training examples) or unseen"),
        Column("n", INTEGER, "tokens in it"),
        Column("norm_mean", REAL, "mean ‖w‖ before training"),
        Column("update_mean", REAL, "mean ‖Δw‖"),
        Column("relative_update_mean", REAL, "mean ‖Δw‖/‖w‖"),
    ),
    "sensitivity": (
        *DATA,
        Column("scale", REAL, "γ: noise relative to each tensor's root mean square"),
        Column("seed", INTEGER, "draw of the noise"),
        Column("loss", REAL, "loss with the noise", "nats/token"),
        Column("loss_increase", REAL, "loss with the noise less loss without", "nats/token"),
        Column("n", INTEGER, "predicted tokens", "tokens"),
        Column("forward_dtype", TEXT, "precision of the forward pass"),
    ),
}
