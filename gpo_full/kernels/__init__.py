"""Parts of a model computed in fewer passes than the model's own code, with the same result.

layers      a model's decoder layers; replacing a module's forward
autocast    the type in which autocast computes
matmul      matrix products in float32 by oneDNN
norms       root-mean-square norms
rotary      rotary position embeddings
gated_mlp   gated MLPs
fast        all of them for the time of a forward pass
"""
