"""Networks: built-in ones, known architectures without weights, and code of the user's own by name.

models.py              mlp, cnn and others by name: small networks to run
loading.py             any of them by name
pretrained/            real networks with their weights
packages.py            files that packages of the Python index carry, found or fetched
architectures.py       known networks by name (Llama, GPT-2, BERT, ViT, ResNet), without weights, for counting
language/              sizes of language models, published or from a `config.json` of Hugging Face, and their modules
transformer_blocks.py  what the transformers that read images are built of
small_networks.py      resnet, depthwise, transformer, gru, lstm: small networks to run
convolutional.py       what the other networks are built of
importing.py           "package.module:callable" and "file.py:callable"
"""
