"""What happens before the first step: each argument checked, the model made ready, everything tried that comes later.

arguments, launch                    what GPOTrainer is given; what the launcher started is what was asked for
model, adapters                      the model loaded and made ready; the adapter that is trained
made_again, named_base               what is saved of a model is what was trained; so is the base that an adapter names
trial                                optimizer, schedule and saving, tried before they are needed
dry_run                              what a run needs of each device
"""
