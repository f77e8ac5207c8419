"""Parts of a model computed in fewer passes than the model's own code, with the same result.

layers, autocast      which layers a model has; the precision that autocast computes in
matmul                matrix products in float32 by oneDNN
norms, rotary, gated_mlp   root-mean-square norms, rotary positions, gated MLPs
"""
