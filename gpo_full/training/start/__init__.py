"""What happens before the first step: each argument checked, the model made ready, everything tried that comes later.

arguments, launch                    what GPOTrainer is given; what the launcher started is what was asked for
model, adapters                      the model loaded and made ready; the adapter that is trained
trial                                optimizer, schedule and saving, tried before they are needed
dry_run                              what a run needs of each device
"""
