"""Networks: built-in ones, known architectures without weights, and code of the user's own by name.

models.py              mlp, cnn: small networks to run
loading.py             any of them by name
pretrained/            real networks with their weights
packages.py            files that packages of the Python index carry, found or fetched
architectures.py       known networks by name (Llama, GPT-2, BERT, ViT, ResNet), without weights, for counting
transformer_blocks.py  what the transformers are built of
convolutional.py       what the other networks are built of
importing.py           "package.module:callable" and "file.py:callable"
"""
